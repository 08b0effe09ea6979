"""PostgreSQL: the end of attempts, a group in one transaction, and what people do to recipients. Every change writes its event in the same one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from postroom_core.errors import Unavailable
from postroom_delivery.limits import Pace
from postroom_delivery.spool import postgres_accept, postgres_tls
from postroom_delivery.spool.model import OPEN_STATES, Claim, EventDetail, Key, LostLease, Notice, RecipientRow, Settlement, State
from postroom_delivery.spool.postgres_link import Link, Transaction, clean
from postroom_delivery.spool.postgres_suppression import suppress
from postroom_delivery.spool.tls_tally import TlsSession

_VERBS = {"retry": "retried", "hold": "held", "release": "released"}


@dataclass(frozen=True, slots=True)
class Settling:
    """One call of Spool.settle; `now` is the caller's clock, to which its due times belong."""

    now: int
    settlements: Sequence[Settlement]
    notices: Sequence[Notice]
    sessions: Sequence[TlsSession] = ()


async def doubt(link: Link, holder: str, requests: Sequence[Sequence[Claim]]) -> list[None]:
    """See Spool.doubt. Raises LostLease when a claim of any request is lost; then none is in doubt."""
    rows = sorted((claim.recipient, claim.fence) for claims in requests for claim in claims)
    if len(await link.alone("doubt", rows, holder)) != len(rows):
        raise LostLease
    return [None] * len(requests)


async def settle(transaction: Transaction, holder: str | None, requests: Sequence[Settling]) -> list[None]:
    """See Spool.settle. `holder` None settles by command: recipients that nobody has leased. Raises LostLease when a claim is lost."""
    given = {s.claim.recipient: (s, transaction.now - request.now) for request in requests for s in request.settlements}
    rows = await transaction.many("settle", [_row(*given[number]) for number in sorted(given)], holder)
    if len(rows) != sum(len(request.settlements) for request in requests):
        raise LostLease
    closed: dict[str, int] = {}
    letters = []
    for row in rows:
        settlement, shift = given[row["id"]]
        event = settlement.event
        if event is not None:
            transaction.event(row["message"], row["address"], row["attempts"], event)
        if settlement.state is State.SCHEDULED:
            transaction.wake(row["pool"], row["destination"], row["tenant"], settlement.due_at + shift)
        if event is not None and event.kind == "dead-letter":
            letters.append((row["message"], _told(event)))
        closed[row["message"]] = closed.get(row["message"], 0) + (settlement.state not in OPEN_STATES)
    await transaction.many("insert_dead_letters", list(dict(letters).items()), transaction.now)
    await suppress(transaction, [s.suppress for request in requests for s in request.settlements if s.suppress is not None])
    notices = [postgres_accept.Accepting(notice.message, 0, notice.body) for request in requests for notice in request.notices]
    if any(await postgres_accept.accept(transaction, notices)) if notices else False:
        raise Unavailable("a notice was refused by the spool")  # cannot be: notices carry no allowance
    await _close(transaction, {message: count for message, count in closed.items() if count})
    await postgres_tls.add(transaction, holder or "", [session for request in requests for session in request.sessions])
    return [None] * len(requests)


async def _close(transaction: Transaction, closed: dict[str, int]) -> None:
    rows = await transaction.many("close_recipients", sorted(closed.items()))
    if final := [row["id"] for row in rows if row["open_recipients"] == 0]:
        await transaction.fetch("delete_bodies", final)


def _told(event: EventDetail) -> str:
    return clean(str(event.reply) if event.reply else event.text)


def _row(settlement: Settlement, shift: int) -> tuple[Any, ...]:
    claim, event = settlement.claim, settlement.event
    due = settlement.due_at + shift if settlement.state is State.SCHEDULED else 0
    told = (None, None) if event is None else (_told(event), event.classification)
    ambiguous = int(event is not None and event.kind == "ambiguous")
    return (
        claim.recipient,
        claim.fence,
        settlement.state.value,
        due,
        int(settlement.attempted),
        *told,
        settlement.destination,
        ambiguous,
        settlement.delay_told,
    )


async def throttle(transaction: Transaction, key: Key) -> None:
    """See Spool.throttle."""
    for row in await transaction.fetch("lock_pace", key.pool, key.destination):
        pace = Pace(row["factor"], row["factor_at"]).reduced(transaction.now)
        await transaction.fetch("write_pace", key.pool, key.destination, pace.factor, pace.at)


async def end(
    transaction: Transaction,
    now: int,
    recipients: Sequence[RecipientRow],
    settlement: Callable[[Claim], Settlement],
    notices: Sequence[Notice],
) -> int:
    """See Spool.end: a recipient that a worker has leased meanwhile fails the whole with LostLease."""
    fences = {row["id"]: row["fence"] for row in await transaction.fetch("fences", [row.id for row in recipients])}
    settlements = [settlement(Claim(r.id, fences[r.id], r.address, r.attempts, r.notify, r.orcpt)) for r in recipients if r.id in fences]
    await settle(transaction, None, [Settling(now, settlements, notices)])
    return len(settlements)


async def reschedule(transaction: Transaction, action: str, recipients: Sequence[RecipientRow]) -> int:
    """See Spool.reschedule. A retry by command also lifts the destination's block: the person who asks knows better."""
    ids = sorted(row.id for row in recipients)
    rows = await transaction.fetch(action, ids) if action == "hold" else await transaction.fetch(action, transaction.now, ids)
    for row in rows:
        transaction.event(row["message"], row["address"], row["attempts"], EventDetail(_VERBS[action], text="by command"))
        if action != "hold":
            transaction.wake(row["pool"], row["destination"], row["tenant"], transaction.now, unblock=True)
    return len(rows)


async def suspend_tenant(transaction: Transaction, tenant: str, suspended: bool) -> int:
    """See Spool.suspend_tenant. What became due meanwhile is looked at again."""
    if suspended:
        return len(await transaction.fetch("suspend_tenant", tenant))
    resumed = await transaction.fetch("resume_tenant", tenant)
    if resumed:
        await transaction.fetch("wake_tenant", tenant)
    return len(resumed)
