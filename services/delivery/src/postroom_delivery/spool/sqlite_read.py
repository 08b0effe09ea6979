"""SQLite: what people ask. Reads only; every answer is bounded."""

import sqlite3

from postroom_delivery.limits import Bucket, Ledger, Pace
from postroom_delivery.spool import backlog as counting
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
from postroom_delivery.spool.rows import message_row
from postroom_delivery.spool.sqlite_accept import SQL

# Destinations that `backlog` looks at: one process owns this spool and nothing scales it, so who asks is a person, and bodies wait for this thread.
MOST_LOOKED_AT = 500


def show(connection: sqlite3.Connection, message_id: str) -> MessageRow | None:
    """The message with its first 1000 recipients."""
    row = connection.execute(SQL["message_row"], (message_id,)).fetchone()
    if row is None:
        return None
    return message_row(row, [_recipient(found) for found in connection.execute(SQL["recipient_rows"], (message_id,))])


def _recipient(row: tuple[int, str, str, int, int, str, str, int, str, str, str]) -> RecipientRow:
    number, address, state, due_at, attempts, reply, classification, ambiguous, *rest = row
    return RecipientRow(number, address, State(state), due_at, attempts, reply, classification, bool(ambiguous), *rest)


def list_messages(connection: sqlite3.Connection, which: ListFilter) -> list[MessageRow]:
    """Messages with at least one recipient that fits, oldest first."""
    marks = ", ".join("?" for _ in which.states)
    # Only what is asked for is in the statement: the engine then takes the index that fits.
    asked = {"domain = ?": which.domain, "tenant = ?": which.tenant, "pool = ?": which.pool}
    asked |= {"destination = ?": which.destination, "last_class = ?": which.classification}
    given = {condition: value for condition, value in asked.items() if value}
    chosen = " ".join([f"state IN ({marks})", AMONG[which.among], *(f"AND {condition}" for condition in given)])
    values: tuple[str | int, ...] = (*which.states, *given.values())
    asked_of_message: dict[str, str | int] = {"reverse_path = ?": which.sender, "received_at < ?": which.received_before}
    of_message = {condition: value for condition, value in asked_of_message.items() if value}
    if of_message:
        conditions = " AND ".join(["id > ?", *(["open_recipients > 0"] if which.among == "open" else []), *of_message])
        fits = f"EXISTS (SELECT 1 FROM recipient WHERE message = message.id AND {chosen})"
        query = f"SELECT id FROM message WHERE {conditions} AND {fits} ORDER BY id LIMIT ?"
        values = (*of_message.values(), *values)
    else:
        query = f"SELECT DISTINCT message FROM recipient WHERE message > ? AND {chosen} ORDER BY message LIMIT ?"
    ids = [row[0] for row in connection.execute(query, (which.after, *values, which.limit))]
    found = [show(connection, message_id) for message_id in ids]
    return [message for message in found if message is not None]


def dead_letters(connection: sqlite3.Connection, before: DeadLetter | None, limit: int) -> list[DeadLetter]:
    """Newest first."""
    at, message = (before.at, before.message) if before is not None else (1 << 62, "")
    return [DeadLetter(*row) for row in connection.execute(SQL["dead_letters"], (at, at, message, limit))]


def events(connection: sqlite3.Connection, message_id: str, after: int, limit: int) -> list[EventRow]:
    """In order of their numbers."""
    if message_id:
        rows = connection.execute(SQL["events_of_message"], (message_id, after, limit))
    else:
        rows = connection.execute(SQL["events"], (after, limit))
    return [EventRow(*row) for row in rows]


def stats(connection: sqlite3.Connection, now: int) -> Stats:
    """The queue in numbers."""
    due, oldest = connection.execute(SQL["stats_due"], {"now": now, "most": MOST_COUNTED}).fetchone()
    return Stats(
        recipients=dict(connection.execute(SQL["stats_states"]).fetchall()),
        due=due,
        oldest_due_at=oldest,
        ambiguous=connection.execute(SQL["stats_ambiguous"]).fetchone()[0],
        destinations=tuple(
            DestinationRow(pool, name, scheduled, connections, bool(suspended), next_at, Pace(factor, at).now(now))
            for pool, name, scheduled, connections, suspended, next_at, factor, at in connection.execute(SQL["stats_destinations"])
        ),
        suspended_tenants=tuple(row[0] for row in connection.execute(SQL["suspended_tenants"])),
    )


def backlog(connection: sqlite3.Connection, now: int, limits_of: LimitsOf) -> Backlog:
    """See Spool.backlog."""
    lines = [_line(connection, now, row) for row in connection.execute(SQL["backlog_destinations"], (now, MOST_LOOKED_AT)).fetchall()]
    due = {
        (line.key, tenant): _due(connection, now, (line.key.pool, line.key.destination, tenant), most)
        for line in lines
        if (most := counting.room(line, limits_of(line.key), now))
        for tenant, _ in line.lanes
    }
    ledger = Ledger(now, lambda key, seconds: Bucket(*(connection.execute(SQL["bucket"], (key, seconds)).fetchone() or (None, None))))
    return counting.count(lines, due, limits_of, dict(connection.execute(SQL["backlog_connections"]).fetchall()), ledger, now)


def _line(connection: sqlite3.Connection, now: int, row: tuple[str, str, float | None, int | None, float, int, int, int]) -> counting.Line:
    pool, name, tokens, at, factor, factor_at, next_at, used = row
    lanes = connection.execute(SQL["backlog_lanes"], (pool, name, now)).fetchall()
    waits = tuple((tenant, max(since, next_at)) for tenant, since in lanes)
    return counting.Line(Key(pool, name), Bucket(tokens, at), Pace(factor, factor_at).now(now), used, waits)


def _due(connection: sqlite3.Connection, now: int, lane: tuple[str, str, str], most: int) -> int:
    """The lane's due recipients, at most so many."""
    found = 0
    for (priority,) in connection.execute(SQL["lane_priorities"], lane).fetchall():
        if found < most:
            found += connection.execute(SQL["backlog_lane"], (*lane, priority, now, most - found)).fetchone()[0]
    return found
