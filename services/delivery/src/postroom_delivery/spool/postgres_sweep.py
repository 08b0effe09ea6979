"""PostgreSQL: forgetting what is over, and folding counters. Housekeeping that no message waits for."""

from postroom_delivery.spool.postgres_link import DAY_MS, Transaction
from postroom_delivery.spool.postgres_migrate import LOCK

SWEEP = 500
# No client takes an hour between two chunks of a body: its process is gone.
STAGING_MS = 3_600_000


async def fold_tally(transaction: Transaction) -> None:
    """Adds the differences since the last time to the counters; one process at a time."""
    if await transaction.connection.fetchval("SELECT pg_try_advisory_xact_lock($1, 2)", LOCK):
        await transaction.fetch("fold_tally")
        await transaction.fetch("delete_empty_tally")


async def sweep(transaction: Transaction, before: int) -> int:
    """See Spool.sweep."""
    messages = [row["id"] for row in await transaction.fetch("final_messages", before, SWEEP)]
    for statement in ("delete_recipients", "delete_messages"):
        await transaction.fetch(statement, messages)
    stale = [row["message"] for row in await transaction.fetch("stale_stagings", transaction.now - STAGING_MS)]
    await transaction.fetch("delete_staged", stale)
    await transaction.fetch("staging_ends", stale)
    for statement in ("delete_idle_destinations", "delete_old_buckets", "delete_expired_suppressions", "forget"):
        await transaction.fetch(statement, before)
    if await transaction.connection.fetchval("SELECT pg_try_advisory_xact_lock($1, 3)", LOCK):
        for row in await transaction.fetch("event_days"):
            if (row["day"] + 1) * DAY_MS <= before:
                await transaction.connection.execute(f"DROP TABLE event_{row['day']}")
    return len(messages)
