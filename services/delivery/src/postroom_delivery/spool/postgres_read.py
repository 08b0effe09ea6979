"""PostgreSQL: what people ask. Reads only; every answer is bounded.

Numbers of events: transactions end in another order than they begin, so a reader that goes by a counter passes over events that are committed
later with smaller numbers. A number therefore begins with the number of its transaction, and the stream of all events stops before the
oldest transaction that still runs.
"""

from collections.abc import Sequence
from typing import Any

from postroom_delivery.limits import Bucket, Ledger, Pace
from postroom_delivery.spool import backlog as counting
from postroom_delivery.spool.backlog import Line
from postroom_delivery.spool.interface import LimitsOf
from postroom_delivery.spool.model import (
    AMONG,
    MOST_COUNTED,
    Backlog,
    DeadLetter,
    DestinationRow,
    EventRow,
    Key,
    ListFilter,
    MessageRow,
    RecipientRow,
    State,
    Stats,
)
from postroom_delivery.spool.postgres_link import SQL, Connection
from postroom_delivery.spool.rows import message_row

# As many as one claim folds in.
ARRIVALS = 5000
# The lists, each for what a partial index serves.
_LIST = {
    (name, among): SQL[name].replace("AND among", condition).replace("AND for_messages", "AND m.open_recipients > 0" if among == "open" else "")
    for name in ("list_by_recipient", "list_by_message")
    for among, condition in AMONG.items()
}


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
    statement = _LIST["list_by_message" if which.sender or which.received_before else "list_by_recipient", which.among]
    async with connection.transaction(readonly=True):
        # What is not asked for must fall out of the plan: only then an index is searched by what is.
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        rows = await connection.fetch(statement, which.after, list(which.states), which.domain, which.sender, which.limit, *more)
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
        suspended_tenants=tuple(row["tenant"] for row in await connection.fetch(SQL["suspended_tenants"])),
    )


async def backlog(connection: Connection, now: int, limits_of: LimitsOf) -> Backlog:
    """See Spool.backlog."""
    lines = await _lines(connection, now)
    rooms = [(line, counting.room(line, limits_of(line.key), now)) for line in lines]
    lanes = [(line.key.pool, line.key.destination, tenant, most) for line, most in rooms if most for tenant, _ in line.lanes]
    rows = await connection.fetch(SQL["backlog_counts"], now, *_columns(lanes, 4))
    due = {(Key(row["pool"], row["name"]), row["tenant"]): row["due"] for row in rows}
    keys = sorted(counting.buckets(lines, limits_of))
    found = await connection.fetch(SQL["backlog_buckets"], *_columns(keys, 2))
    buckets = {(row["key"], row["window_seconds"]): Bucket(row["tokens"], row["at"]) for row in found}
    ledger = Ledger(now, lambda key, seconds: buckets.get((key, seconds), Bucket(None, None)))
    connections = {row["pool"]: row["used"] for row in await connection.fetch(SQL["backlog_connections"])}
    return counting.count(lines, due, limits_of, connections, ledger, now)


async def _lines(connection: Connection, now: int) -> list[Line]:
    """What a claim would visit: the destinations' rows, and before them what has arrived since the last claim."""
    places: dict[Key, Any] = {}
    lanes: dict[Key, dict[str, int]] = {}
    for row in await connection.fetch(SQL["backlog_arrivals"], now, ARRIVALS):
        key = Key(row["pool"], row["name"])
        if key not in places or row["next_at"] < places[key]["next_at"]:
            places[key] = row
        if row["tenant"]:
            lanes.setdefault(key, {})[row["tenant"]] = row["due"]
    for row in await connection.fetch(SQL["backlog_destinations"], now, counting.MOST_DESTINATIONS):
        places.setdefault(Key(row["pool"], row["name"]), row)
    for row in await connection.fetch(SQL["backlog_lanes"], now, *_columns([(key.pool, key.destination) for key in places], 2)):
        lanes.setdefault(Key(row["pool"], row["name"]), {})[row["tenant"]] = row["since"]
    return [
        Line(
            key,
            Bucket(row["tokens"], row["tokens_at"]),
            Pace(row["factor"], row["factor_at"]).now(now),
            row["used"],
            tuple((tenant, max(since, row["next_at"])) for tenant, since in lanes.get(key, {}).items()),
        )
        for key, row in sorted(places.items(), key=lambda place: place[1]["next_at"])
        if row["next_at"] <= now
    ]


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as one array per column, also when there are none."""
    return [[row[at] for row in rows] for at in range(width)]
