"""PostgreSQL: what people ask. Reads only; every answer is bounded.

Numbers of events: transactions end in another order than they begin, so a reader that goes by a counter passes over events that are committed
later with smaller numbers. A number therefore begins with the number of its transaction, and the stream of all events stops before the
oldest transaction that still runs.
"""

from collections.abc import Sequence
from typing import Any

from postroom_delivery.limits import Pace
from postroom_delivery.spool.model import DeadLetter, DestinationRow, EventRow, ListFilter, MessageRow, RecipientRow, State, Stats
from postroom_delivery.spool.postgres_link import SQL, Connection
from postroom_delivery.spool.rows import message_row

# Beyond this `due` says "at least so many" for a lane: enough for an autoscaler, and counted in milliseconds.
MOST_COUNTED = 10_000


async def show(connection: Connection, message_id: str) -> MessageRow | None:
    """The message with its first 1000 recipients."""
    rows = await _messages(connection, [message_id])
    return rows[0] if rows else None


async def _messages(connection: Connection, ids: Sequence[str]) -> list[MessageRow]:
    recipients: dict[str, list[RecipientRow]] = {}
    for message, *columns in await connection.fetch(SQL["recipient_rows"], ids):
        recipients.setdefault(message, []).append(_recipient(columns))
    return [message_row(row, recipients.get(row["id"], [])) for row in await connection.fetch(SQL["message_rows"], ids)]


def _recipient(columns: Sequence[Any]) -> RecipientRow:
    number, address, state, *rest = columns
    return RecipientRow(number, address, State(state), *rest)


async def list_messages(connection: Connection, which: ListFilter) -> list[MessageRow]:
    """Messages with at least one recipient that fits, oldest first."""
    more = (which.tenant, which.pool, which.destination, which.classification, which.received_before)
    rows = await connection.fetch(SQL["list_messages"], which.after, list(which.states), which.domain, which.sender, which.limit, *more)
    return await _messages(connection, [row["message"] for row in rows])


async def dead_letters(connection: Connection, before: DeadLetter | None, limit: int) -> list[DeadLetter]:
    """Newest first."""
    at, message = (before.at, before.message) if before is not None else (1 << 62, "")
    return [DeadLetter(*row) for row in await connection.fetch(SQL["dead_letters"], at, message, limit)]


async def events(connection: Connection, message_id: str, after: int, limit: int) -> list[EventRow]:
    """In order of their numbers."""
    if message_id:
        rows = await connection.fetch(SQL["events_of_message"], message_id, after, limit)
    else:
        rows = await connection.fetch(SQL["events"], after, limit)
    return [EventRow(*row) for row in rows]


async def stats(connection: Connection, now: int) -> Stats:
    """The queue in numbers."""
    due = await connection.fetchrow(SQL["stats_due"], now, MOST_COUNTED)
    return Stats(
        recipients={row["state"]: row["n"] for row in await connection.fetch(SQL["stats_states"])},
        due=due["due"],
        oldest_due_at=due["oldest"],
        ambiguous=await connection.fetchval(SQL["stats_ambiguous"]),
        destinations=tuple(
            DestinationRow(pool, name, scheduled, connections, suspended, next_at, Pace(factor, at).now(now))
            for pool, name, scheduled, connections, suspended, next_at, factor, at in await connection.fetch(SQL["stats_destinations"])
        ),
    )
