"""PostgreSQL: the suppression list."""

from collections.abc import Sequence

from postroom_delivery.spool.model import Suppression, SuppressionFilter
from postroom_delivery.spool.postgres_link import SQL, Connection, Transaction, clean


async def suppress(transaction: Transaction, entries: Sequence[Suppression]) -> int:
    """See Spool.suppress. Sorted, so that two groups cannot wait for each other; of two entries for one address the longer counts."""
    longest: dict[tuple[str, str, str], Suppression] = {}
    for entry in entries:
        key = (entry.scope, entry.owner, entry.address)
        if key not in longest or not entry.expires_at or 0 < longest[key].expires_at < entry.expires_at:
            longest[key] = entry
    rows = [(*key, clean(e.reason), clean(e.evidence), e.created_at, e.expires_at) for key, e in sorted(longest.items(), key=lambda item: item[0])]
    return len(await transaction.many("suppress", list(rows)))


async def unsuppress(transaction: Transaction, entries: Sequence[Suppression]) -> int:
    """See Spool.unsuppress."""
    return len(await transaction.many("unsuppress", sorted({(entry.scope, entry.owner, entry.address) for entry in entries})))


async def suppressions(connection: Connection, which: SuppressionFilter) -> list[Suppression]:
    """See Spool.suppressions."""
    rows = await connection.fetch(SQL["suppressions"], which.after, which.scope, which.owner, which.address, which.limit)
    return [Suppression(*row) for row in rows]


async def suppressed(connection: Connection, now: int, tenant: str, domain: str, addresses: Sequence[str]) -> dict[str, Suppression]:
    """See Spool.suppressed."""
    rows = await connection.fetch(SQL["suppressed"], now, tenant, domain, list(addresses))
    return {row["address"]: Suppression(*row) for row in rows}
