"""SQLite: how TLS sessions went, counted by day. See postroom_delivery.spool.tls_tally."""

import sqlite3
from collections.abc import Sequence

from postroom_delivery.spool import statements, tls_tally
from postroom_delivery.spool.tls_tally import TlsCount, TlsSession

SQL = statements.load("sqlite_tls.sql")
DAY_MS = 86_400_000


def add(connection: sqlite3.Connection, now: int, holder: str, sessions: Sequence[TlsSession]) -> None:
    """In the transaction of the settlement that the sessions led to."""
    day = now // DAY_MS
    full = [
        domain
        for domain in tls_tally.domains(sessions)
        if connection.execute(SQL["rows_of_domain"], (day, domain, holder)).fetchone()[0] >= tls_tally.MOST_ROWS
    ]
    connection.executemany(SQL["add"], [(day, holder, *row) for row in tls_tally.rows(sessions, full)])


def domains(connection: sqlite3.Connection, day: int, after: str, limit: int) -> list[str]:
    """See TlsResults.tls_domains."""
    return [str(row[0]) for row in connection.execute(SQL["domains"], (day, after, limit))]


def counts(connection: sqlite3.Connection, day: int, domain: str) -> list[TlsCount]:
    """See TlsResults.tls_counts."""
    return [TlsCount(TlsSession(domain, *row[:5]), row[5]) for row in connection.execute(SQL["counts"], (day, domain))]


def forget(connection: sqlite3.Connection, day: int, domain: str) -> None:
    """See TlsResults.forget_tls."""
    connection.execute(SQL["forget"], (day, domain)) if domain else connection.execute(SQL["forget_until"], (day,))
