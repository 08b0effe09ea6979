"""SQLite: the end of attempts, and what people do to recipients. Every state change writes its event row in the same transaction."""

import sqlite3
from collections.abc import Callable, Sequence

from postroom_core.errors import Unavailable
from postroom_delivery.limits import Pace
from postroom_delivery.spool.model import (
    OPEN_STATES,
    Claim,
    EventDetail,
    Key,
    LostLease,
    Notice,
    RecipientRow,
    Settlement,
    State,
)
from postroom_delivery.spool.sqlite_accept import SQL, accept, insert_event, turn, wake
from postroom_delivery.spool.sqlite_suppression import suppress

_VERBS = {"retry": "retried", "hold": "held", "release": "released"}


def doubt(connection: sqlite3.Connection, holder: str, claims: Sequence[Claim]) -> None:
    """See Spool.doubt."""
    for claim in claims:
        if connection.execute(SQL["doubt"], (claim.recipient, holder, claim.fence)).rowcount != 1:
            raise LostLease


def settle(connection: sqlite3.Connection, now: int, holder: str | None, settlements: Sequence[Settlement], notices: Sequence[Notice]) -> None:
    """See Spool.settle. `holder` None settles by command: recipients that nobody has leased."""
    closed: dict[str, int] = {}
    for settlement in settlements:
        message, final = _settle_one(connection, now, holder, settlement)
        closed[message] = closed.get(message, 0) + final
    for notice in notices:
        if accept(connection, notice.message, (0, notice.body)) is not None:
            raise Unavailable("a notice was refused by the spool")  # cannot be: notices carry no allowance
    for message, count in closed.items():
        if count and connection.execute(SQL["close_recipients"], (count, message)).fetchone()[0] == 0:
            connection.execute(SQL["delete_body"], (message,))
            connection.execute(SQL["empty_message"], (message,))


def _settle_one(connection: sqlite3.Connection, now: int, holder: str | None, settlement: Settlement) -> tuple[str, int]:
    claim, event = settlement.claim, settlement.event
    ambiguous = int(event is not None and event.kind == "ambiguous")
    told = None if event is None else str(event.reply) if event.reply else event.text
    before = [State.LEASED.value] if holder is not None else [State.SCHEDULED.value, State.HELD.value]
    for state in before:
        row = connection.execute(
            SQL["settle"],
            (
                *(settlement.state.value, settlement.due_at, int(settlement.attempted), told, event.classification if event else None),
                *(settlement.destination, ambiguous, int(settlement.delay_told), claim.recipient, holder, claim.fence, state),
            ),
        ).fetchone()
        if row is not None:
            break
    else:
        raise LostLease
    message, address, pool, destination, tenant, attempts = row
    if event is not None:
        insert_event(connection, now, message, address, attempts, event)
    if settlement.suppress is not None:
        suppress(connection, [settlement.suppress])
    if settlement.state is State.SCHEDULED:
        wake(connection, pool, destination, tenant, settlement.due_at)
    if event is not None and event.kind == "dead-letter":
        connection.execute(SQL["insert_dead_letter"], (now, told, message))
    return message, int(settlement.state not in OPEN_STATES)


def end(
    connection: sqlite3.Connection,
    now: int,
    recipients: Sequence[RecipientRow],
    settlement: Callable[[Claim], Settlement],
    notices: Sequence[Notice],
) -> int:
    """See Spool.end: settles what is still scheduled or held; a recipient that a worker has leased meanwhile fails the whole with LostLease."""
    settlements = []
    for row in recipients:
        (fence,) = connection.execute("SELECT fence FROM recipient WHERE id = ?", (row.id,)).fetchone()
        settlements.append(settlement(Claim(row.id, fence, row.address, row.attempts, row.notify, row.orcpt)))
    settle(connection, now, None, settlements, notices)
    return len(settlements)


def reschedule(connection: sqlite3.Connection, now: int, action: str, recipients: Sequence[RecipientRow]) -> int:
    """See Spool.reschedule. A retry by command also lifts the destination's block: the person who asks knows better."""
    changed, held = 0, set()
    for row in recipients:
        arguments = (row.id,) if action == "hold" else (now, row.id)
        found = connection.execute(SQL[action], arguments).fetchone()
        if found is None:
            continue
        pool, destination, tenant, message, address, attempts = found
        changed += 1
        insert_event(connection, now, message, address, attempts, EventDetail(_VERBS[action], text="by command"))
        if action == "hold":
            held.add((pool, destination, tenant))
        else:
            connection.execute(SQL["unblock_destination"], (pool, destination))
            wake(connection, pool, destination, tenant, now)
    for lane in sorted(held):
        turn(connection, 0, *lane)
    return changed


def suspend(connection: sqlite3.Connection, key: Key, suspended: bool) -> int:
    """See Spool.suspend."""
    where = {"pool": key.pool, "destination": key.destination, "suspended": suspended}
    return connection.execute(SQL["suspend"], where).rowcount


def suspend_tenant(connection: sqlite3.Connection, tenant: str, suspended: bool) -> int:
    """See Spool.suspend_tenant. What became due meanwhile is looked at again."""
    if suspended:
        return connection.execute(SQL["suspend_tenant"], (tenant,)).rowcount
    resumed = connection.execute(SQL["resume_tenant"], (tenant,)).rowcount
    if resumed:
        connection.execute(SQL["wake_tenant"], (tenant,))
    return resumed


def throttle(connection: sqlite3.Connection, now: int, key: Key) -> None:
    """See Spool.throttle."""
    row = connection.execute(SQL["pace"], (key.pool, key.destination)).fetchone()
    if row is not None:
        pace = Pace(*row).reduced(now)
        connection.execute(SQL["write_pace"], (pace.factor, pace.at, key.pool, key.destination))


def release_slot(connection: sqlite3.Connection, now: int, slot: int, key: Key, blocked_until: int) -> None:
    """See Spool.release_slot."""
    connection.execute(SQL["delete_slot"], (slot,))
    until = blocked_until if blocked_until > now else 0
    connection.execute(SQL["block_destination"], {"until": until, "now": now, "pool": key.pool, "destination": key.destination})


def sweep(connection: sqlite3.Connection, before: int, limit: int) -> int:
    """See Spool.sweep."""
    messages = [row[0] for row in connection.execute(SQL["final_messages"], (before, limit))]
    for message in messages:
        for statement in ("delete_events", "delete_recipients", "delete_message"):
            connection.execute(SQL[statement], (message,))
    for statement in ("delete_idle_destinations", "delete_old_buckets", "delete_expired_suppressions", "delete_lone_events"):
        connection.execute(SQL[statement], (before,))
    connection.execute(SQL["forget"], (before, limit))
    return len(messages)
