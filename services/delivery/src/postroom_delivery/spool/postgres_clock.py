"""PostgreSQL: follows the database's clock when it steps, so that nothing waits for hours that were taken away and no lease ends too early.

Back: see postroom_delivery.spool.clockmark; one process does it for all, under the lock of the row that has the latest time. Forward: leases seem to
have ended whose holders live; a process that notices gives them one more lease, in which they renew.
"""

import asyncio

from postroom_delivery.spool import clockmark
from postroom_delivery.spool.postgres_link import Transaction

# A step of a queue of millions moves as many rows; it is rare, and better late than not at all.
STEP_SECONDS = 600


class Watch:
    """Compares the database's clock with the time that has passed for this process."""

    def __init__(self) -> None:
        self._seen: tuple[int, float] | None = None

    def __repr__(self) -> str:
        return f"Watch({self._seen})"

    def went_forward(self, now: int) -> bool:
        """Whether the clock has gone further than time since the last look; `now` in milliseconds of the database."""
        steady = asyncio.get_running_loop().time()
        before, self._seen = self._seen, (now, steady)
        return before is not None and now - before[0] - (steady - before[1]) * 1000 > clockmark.TOLERANCE_MS / 4


async def follow(transaction: Transaction, lease_ms: int) -> int:
    """Moves what waits back when the clock has gone back; by how many milliseconds."""
    now = transaction.now
    rows = await transaction.fetch("latest_time")
    found = clockmark.back(rows[0]["latest"] if rows else None, now)
    if found:
        await transaction.connection.execute(f"SET LOCAL statement_timeout = '{STEP_SECONDS}s'")
        await transaction.fetch("clock_locks_destinations")
        for statement in ("back_recipients", "back_arrivals", "back_lanes", "back_destinations"):
            await transaction.fetch(statement, now, found)
        await transaction.fetch("back_buckets", now)
        await transaction.fetch("back_holders", now + lease_ms)
    if found or not rows or rows[0]["latest"] < now:
        await transaction.fetch("set_latest_time", now)
    return found
