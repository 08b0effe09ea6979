"""SQLite: accepting a message in the writer's transaction. P1: what this commits is what `250` promises."""

import sqlite3

from postroom_core.reply import Reply
from postroom_delivery.spool import allowances, statements
from postroom_delivery.spool.model import Allowance, EventDetail, NewMessage

SQL = statements.load("sqlite.sql")
NEVER = 9223372036854775807


def accept(connection: sqlite3.Connection, message: NewMessage, last_chunk: tuple[int, bytes]) -> Reply | None:
    """None when the message is now in the spool or was there already; a reply when a limit or a lost chunk refuses it."""
    if connection.execute("SELECT 1 FROM message WHERE id = ?", (message.id,)).fetchone():
        return None
    sequence, chunk = last_chunk
    connection.execute(SQL["insert_body"], (message.id, sequence, chunk))
    refusal: Reply | None = None
    if sequence:
        connection.execute(SQL["staging_ends"], (message.id,))
    if sequence and connection.execute(SQL["staged_size"], (message.id,)).fetchone()[0] != message.body_size:
        refusal = Reply(451, "4.3.0", "The message did not arrive whole, please send it again")
    if refusal := refusal or _count(connection, message.allowances, message.received_at):
        connection.execute(SQL["delete_staged_body"], (message.id,))
        return refusal
    _insert(connection, message)
    insert_event(
        connection,
        message.received_at,
        message.id,
        "",
        0,
        EventDetail("accepted", text=f"from {message.client_address or 'inside'} by {message.credential}"),
    )
    return None


def _insert(connection: sqlite3.Connection, message: NewMessage) -> None:
    size = len(message.headers) + 2 + message.body_size
    row = (
        message.id,
        message.tenant,
        message.pool,
        message.domain,
        message.credential,
        message.reverse_path,
        message.body_size,
        size,
        message.eight_bit,
    )
    rest = (message.ret, message.envid, message.client_address, message.traceparent, message.received_at, message.expires_at)
    connection.execute(
        SQL["insert_message"], (*row, *rest, len(message.recipients), message.headers, *message.options.columns(), message.sign, message.campaign)
    )
    due = max(message.received_at, message.options.hold_until)
    for new in message.recipients:
        domain = new.address.rpartition("@")[2]
        values = (message.id, new.address, domain, message.pool, new.destination, message.tenant)
        connection.execute(SQL["insert_recipient"], (*values, message.options.priority, due, new.notify, new.orcpt))
    for destination in dict.fromkeys(new.destination for new in message.recipients):
        wake(connection, message.pool, destination, message.tenant, due)


def turn(connection: sqlite3.Connection, now: int, pool: str, destination: str, tenant: str) -> None:
    """The lane has been looked at: it goes behind the others, and says when it has work again."""
    lane = (pool, destination, tenant)
    priorities = connection.execute(SQL["lane_priorities"], lane).fetchall()
    due = [connection.execute(SQL["first_due"], (*lane, priority)).fetchone()[0] for (priority,) in priorities]
    connection.execute(SQL["lane_turn"], (now, min(due, default=NEVER), *lane))


def wake(connection: sqlite3.Connection, pool: str, destination: str, tenant: str, due: int) -> None:
    """Makes the claim look at this tenant's work for the destination at `due`."""
    where = {"pool": pool, "destination": destination, "tenant": tenant, "due": due}
    connection.execute(SQL["wake_lane"], where)
    connection.execute(SQL["wake_destination"], where)


def _count(connection: sqlite3.Connection, wanted: tuple[Allowance, ...], now: int) -> Reply | None:
    """Counts the message against every allowance, or none."""
    keys = [(allowance.key, allowance.window_seconds) for allowance in wanted]
    rows = {key: connection.execute(SQL["read_usage"], key).fetchone() for key in keys}
    counted = allowances.count(wanted, {key: row for key, row in rows.items() if row}, now)
    if isinstance(counted, Reply):
        return counted
    connection.executemany(SQL["write_usage"], [(*key, *value) for key, value in counted.items()])
    return None


def insert_event(connection: sqlite3.Connection, at: int, message: str, recipient: str, attempt: int, event: EventDetail) -> None:
    """Appends one event row."""
    reply = event.reply
    code, enhanced, text = (reply.code, reply.enhanced, reply.text) if reply else (0, "", event.text)
    connection.execute(
        SQL["insert_event"], (at, message, recipient, event.kind, code, enhanced, text, event.classification, event.remote, event.tls, attempt)
    )
