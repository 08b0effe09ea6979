"""PostgreSQL: how TLS sessions went, counted by day. Rows are a process's own, so that nobody waits for a row of the busiest domain."""

from collections.abc import Sequence

from postroom_delivery.spool import tls_tally
from postroom_delivery.spool.postgres_link import DAY_MS, SQL, Connection, Transaction
from postroom_delivery.spool.tls_tally import TlsCount, TlsSession


async def add(transaction: Transaction, holder: str, sessions: Sequence[TlsSession]) -> None:
    """In the transaction of the settlements that the sessions led to."""
    if not sessions:
        return
    day = transaction.now // DAY_MS
    found = await transaction.fetch("tls_rows_of_domains", day, holder, tls_tally.domains(sessions))
    full = [row["domain"] for row in found if row["n"] >= tls_tally.MOST_ROWS]
    await transaction.many("tls_add", [tuple(row) for row in tls_tally.rows(sessions, full)], day, holder)


async def domains(connection: Connection, day: int, after: str, limit: int) -> list[str]:
    """See TlsResults.tls_domains."""
    return [row["domain"] for row in await connection.fetch(SQL["tls_domains"], day, after, limit)]


async def counts(connection: Connection, day: int, domain: str) -> list[TlsCount]:
    """See TlsResults.tls_counts."""
    rows = await connection.fetch(SQL["tls_counts"], day, domain)
    return [TlsCount(TlsSession(domain, *list(row)[:5]), row["n"]) for row in rows]


async def forget(transaction: Transaction, day: int, domain: str) -> None:
    """See TlsResults.forget_tls."""
    await (transaction.fetch("tls_forget", day, domain) if domain else transaction.fetch("tls_forget_until", day))
