"""PostgreSQL: accepting messages, a group in one transaction. P1: what this commits is what `250` promises."""

from collections.abc import Sequence
from dataclasses import dataclass

from postroom_core.reply import Reply
from postroom_delivery.spool import allowances
from postroom_delivery.spool.model import EventDetail, NewMessage
from postroom_delivery.spool.postgres_link import Transaction, clean

NOT_WHOLE = Reply(451, "4.3.0", "The message did not arrive whole, please send it again")


@dataclass(frozen=True, slots=True)
class Accepting:
    """One message with the last chunk of its body."""

    message: NewMessage
    sequence: int
    chunk: bytes


async def accept(transaction: Transaction, requests: Sequence[Accepting]) -> list[Reply | None]:
    """For each None when the message is now in the spool or was there already; a reply when a limit or a lost chunk refuses it."""
    by_id = {request.message.id: request for request in requests}
    known: set[str] = set()
    if any(request.sequence or request.message.allowances for request in requests):  # a second accept must not count, nor look for staged chunks
        known = {row["id"] for row in await transaction.fetch("known_messages", list(by_id))}
    fresh = [request for id_, request in by_id.items() if id_ not in known]
    refused = await _not_whole(transaction, fresh)
    fresh = [request for request in fresh if request.message.id not in refused]
    refused |= await _count(transaction, [request.message for request in fresh])
    await _insert(transaction, [request for request in fresh if request.message.id not in refused])
    return [refused.get(request.message.id) for request in requests]


async def _not_whole(transaction: Transaction, requests: list[Accepting]) -> dict[str, Reply]:
    staged = [request for request in requests if request.sequence]
    rows = await transaction.many("staged_sizes", [(request.message.id, request.sequence) for request in staged])
    sizes = {row["message"]: int(row["size"]) for row in rows}
    broken = [r.message.id for r in staged if sizes.get(r.message.id, 0) + len(r.chunk) != r.message.body_size]
    if broken:
        await transaction.fetch("delete_staged", broken)
    if staged:
        await transaction.fetch("staging_ends", [request.message.id for request in staged])
    return dict.fromkeys(broken, NOT_WHOLE)


async def _insert(transaction: Transaction, requests: list[Accepting]) -> None:
    rows = await transaction.many("insert_messages", [_row(request.message) for request in requests])
    inserted = {row["id"] for row in rows}  # another process may have accepted the same id meanwhile
    requests = [request for request in requests if request.message.id in inserted]
    await transaction.many("insert_chunks", [(request.message.id, request.sequence, request.chunk) for request in requests])
    recipients = []
    for message in (request.message for request in requests):
        due = max(transaction.now, message.options.hold_until)
        for new in message.recipients:
            place = (message.pool, new.destination, message.tenant)
            recipients.append((message.id, new.address, _domain(new.address), *place, message.options.priority, due, new.notify, new.orcpt))
            transaction.wake(*place, due)
        text = f"from {message.client_address or 'inside'} by {message.credential}"
        transaction.event(message.id, "", 0, EventDetail("accepted", text=text))
    await transaction.many("insert_recipients", recipients)


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


def _row(message: NewMessage) -> tuple[object, ...]:
    size = len(message.headers) + 2 + message.body_size
    who = (message.id, message.tenant, message.pool, message.domain, message.credential, message.reverse_path)
    rest = (message.ret, message.envid, message.client_address, message.traceparent, message.received_at, message.expires_at)
    return (
        *who,
        message.body_size,
        size,
        message.eight_bit,
        *rest,
        len(message.recipients),
        message.headers,
        *message.options.columns(),
        message.sign,
        clean(message.campaign),
    )


async def _count(transaction: Transaction, messages: list[NewMessage]) -> dict[str, Reply]:
    """Counts each message against all of its allowances, or none."""
    keys = sorted({(allowance.key, allowance.window_seconds) for message in messages for allowance in message.allowances})
    if not keys:
        return {}
    await transaction.many("make_usage", keys)
    rows = await transaction.many("lock_usage", keys)
    used = {(row["key"], row["window_seconds"]): (row["window_number"], row["messages"]) for row in rows}
    refused: dict[str, Reply] = {}
    for message in messages:
        counted = allowances.count(message.allowances, used, transaction.now)
        if isinstance(counted, Reply):
            refused[message.id] = counted
        else:
            used |= counted
    await transaction.many("write_usage", [(*key, *value) for key, value in used.items()])
    if refused:
        await transaction.fetch("delete_staged", list(refused))
    return refused
