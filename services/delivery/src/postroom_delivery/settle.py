"""Settling: what the outcomes of an attempt mean for the recipients, and who is told. The last station: attempt → **settle**. Pure.

First the pool's table of replies judges every outcome: it may give it another class, another end, and an action beside it.

delivered → final; DSN only when NOTIFY=SUCCESS was asked for and the next hop cannot send one itself (`relayed`).
deferred  → scheduled again after the back-off, or expired with a DSN when the next attempt would come after the end of the lifetime; a delay that
            the sender wants to know is told once.
bounced   → final, DSN to the reverse-path; when that is null, to the dead-letter list.
NOTIFY=NEVER suppresses every DSN (RFC 3461 section 5.2); the event rows tell the story in any case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from postroom_core.documents import Pool, Retry
from postroom_core.ids import new_message_id
from postroom_core.suppression import normal
from postroom_delivery import bounce, retry
from postroom_delivery.bounce import Author, Original, Report
from postroom_delivery.classify import Action, Class, table_of
from postroom_delivery.outcome import Bounced, Cause, Deferred, Delivered, Judged, Outcome, Released, judge
from postroom_delivery.spool.model import (
    Claim,
    ClaimedMessage,
    EventDetail,
    MailOptions,
    NewMessage,
    NewRecipient,
    Notice,
    Settlement,
    State,
    Suppression,
)

MAILER_DAEMON = "mailer-daemon"
# RFC 3463: delivery time expired, for good.
LATE = "5.4.7"
# Addresses are given to new people, and servers err: a bounced address gets another chance, one that bounces again another quarter.
SUPPRESSED_MS = 90 * 86_400_000
MOST_EVIDENCE = 1000
# After this a sender who asked with NOTIFY=DELAY is told, unless the pool says another time: within a working day, past most greylisting.
ASKED_DELAY_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Context:
    """What settling needs to know beside the outcomes. `jitter` is from 0 to 1; `remote` and `tls` name the peer; no attempt: a command."""

    now: int
    pool: Pool
    own_name: str
    jitter: float
    remote: str = ""
    tls: str = ""
    attempted: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to commit; `reports` become DSNs by `notices`. `judged` are the outcomes as the pool's table sees them."""

    settlements: tuple[Settlement, ...]
    reports: tuple[Report, ...]
    judged: Mapping[Claim, Judged]

    def asks(self, action: Action) -> bool:
        """Whether a recipient's reply asks for this: REDUCE_RATE and SUSPEND concern the destination, ALERT the operator."""
        return any(one.action is action for one in self.judged.values())


def decide(message: ClaimedMessage, outcomes: Mapping[Claim, Outcome], context: Context) -> Verdict:
    """One settlement per claim."""
    table = table_of(context.pool.reply_rules)
    judged = {claim: judge(outcome, table) for claim, outcome in outcomes.items()}
    settlements, reports = [], []
    for claim, one in judged.items():
        settlement, report = _one(message, claim, one, context)
        settlements.append(settlement)
        if report is not None:
            reports.append(report)
    return Verdict(tuple(settlements), tuple(reports), judged)


def _one(message: ClaimedMessage, claim: Claim, judged: Judged, context: Context) -> tuple[Settlement, Report | None]:
    outcome = judged.outcome
    match outcome:
        case Delivered():
            event = EventDetail("delivered", outcome.reply, classification="success", remote=context.remote, tls=context.tls)
            return Settlement(claim, State.DELIVERED, event), _relayed(claim, outcome, context)
        case Deferred():
            return _deferred(message, claim, outcome, context, slowly=judged.action is Action.RETRY_SLOWLY)
        case Bounced():
            kind = "expired" if outcome.cause.status == LATE else "suppressed" if outcome.suppressed else "bounced"
            settlement, report = _failed(message.reverse_path, claim, outcome.cause, kind, context)
            if judged.action is Action.SUPPRESS and message.reverse_path:
                settlement = replace(settlement, suppress=_suppression(message, claim, outcome.cause, context))
            return settlement, report
        case Released():
            return Settlement(claim, State.SCHEDULED, None, due_at=context.now, attempted=False), None
        case _ as never:
            assert_never(never)


def _suppression(message: ClaimedMessage, claim: Claim, cause: Cause, context: Context) -> Suppression:
    """For the tenant: what one tenant's mail has found out is not told to another."""
    expires = context.now + SUPPRESSED_MS
    return Suppression("tenant", message.tenant, normal(claim.address), "bounce", cause.text[:MOST_EVIDENCE], context.now, expires)


def too_late(message: ClaimedMessage, now: int) -> Bounced | None:
    """The end of a message that was to be returned rather than delivered after its time (RFC 2852, mode R); nothing is sent any more."""
    options = message.options
    if not options.deliver_by_return or not options.deliver_by or now < options.deliver_by:
        return None
    return Bounced(Cause(LATE, "The message was not delivered within the time that its sender gave (DELIVERBY)", Class.OTHER))


def _deferred(message: ClaimedMessage, claim: Claim, outcome: Deferred, context: Context, *, slowly: bool) -> tuple[Settlement, Report | None]:
    due = retry.next_due(context.now, claim.attempts + 1, context.pool.retry, context.jitter, slowly=slowly)
    if context.now < message.options.deliver_by < due:
        due = message.options.deliver_by  # then it is told, or returned
    if due > message.expires_at:
        return _failed(message.reverse_path, claim, replace(outcome.cause, status="4.4.7"), "expired", context)
    kind = "ambiguous" if outcome.ambiguous else "deferred"
    delayed = _delayed(message, claim, outcome.cause, context)
    return Settlement(claim, State.SCHEDULED, _event(kind, outcome.cause, context), due_at=due, delay_told=delayed is not None), delayed


def _delayed(message: ClaimedMessage, claim: Claim, cause: Cause, context: Context) -> Report | None:
    """A delay is told once, to who asked for it, by the pool's setting, or because the time of RFC 2852, mode N, has passed."""
    at = delay_notice_at(message, claim, context.pool.retry)
    if claim.delay_told or not message.reverse_path or at is None or context.now < at:
        return None
    return replace(_report(claim, "delayed", cause, cause.text, context), status=f"4{cause.status[1:]}", retry_until=message.expires_at)


def delay_notice_at(message: ClaimedMessage, claim: Claim, schedule: Retry) -> int | None:
    """Unix milliseconds from which a deferral is told to the sender (RFC 3461 section 4.1); None is never."""
    asked = _words(claim.notify)
    if asked and "DELAY" not in asked:
        return None
    waits = schedule.delay_notice if schedule.delay_notice is not None or not asked else ASKED_DELAY_SECONDS
    began = max(message.received_at, message.options.hold_until)
    times = [began + int(waits * 1000)] if waits is not None else []
    if message.options.deliver_by and not message.options.deliver_by_return:
        times.append(message.options.deliver_by)
    return min(times, default=None)


def _failed(reverse_path: str, claim: Claim, cause: Cause, kind: str, context: Context) -> tuple[Settlement, Report | None]:
    state = State.EXPIRED if kind == "expired" else State.BOUNCED
    asked = _words(claim.notify)
    if "NEVER" in asked:
        return Settlement(claim, state, _event(kind, cause, context)), None
    if not reverse_path:
        return Settlement(claim, state, _event("dead-letter", cause, context)), None
    if asked and "FAILURE" not in asked:
        return Settlement(claim, state, _event(kind, cause, context)), None
    text = f"The lifetime of the message ended; the last attempt said: {cause.text}" if kind == "expired" and cause.status != LATE else cause.text
    return Settlement(claim, state, _event(kind, cause, context)), _report(claim, "failed", cause, text, context)


def _relayed(claim: Claim, outcome: Delivered, context: Context) -> Report | None:
    if outcome.dsn or "SUCCESS" not in _words(claim.notify):
        return None
    return Report(claim, "relayed", "2.0.0", f"{context.remote} accepted the message", context.remote, str(outcome.reply), context.now)


def _report(claim: Claim, action: str, cause: Cause, text: str, context: Context) -> Report:
    diagnostic = str(cause.reply) if cause.reply is not None else ""
    attempted_at = context.now if cause.status != LATE and context.attempted else 0
    return Report(claim, action, cause.status, text, context.remote if diagnostic else "", diagnostic, attempted_at)


def _words(notify: str) -> list[str]:
    return notify.split(",") if notify else []


def _event(kind: str, cause: Cause, context: Context) -> EventDetail:
    return EventDetail(kind, cause.reply, cause.text, cause.classification.value, context.remote, context.tls)


def command_failure(reverse_path: str, claim: Claim, reason: Cause, context: Context) -> tuple[Settlement, Report | None]:
    """The same end as a bounce, by a person's command."""
    return _failed(reverse_path, claim, reason, "bounced", context)


def deleted(claim: Claim, reason: Cause, context: Context) -> Settlement:
    """The end without a DSN, by a person's command."""
    return Settlement(claim, State.DELETED, _event("deleted", reason, context))


@dataclass(frozen=True, slots=True)
class Origin:
    """The message that notices are about, with where they travel. A notice goes the way of the message: same pool, same tenant.

    `author` writes them; `sign` when its domain has DKIM keys. `require_tls` is the message's own and holds for what is told about it (RFC 8689).
    """

    original: Original
    author: Author
    tenant: str
    domain: str
    destination: str
    sign: bool = False
    require_tls: bool = False


def notices(origin: Origin, reports: Sequence[Report], context: Context) -> list[Notice]:
    """One DSN per action, to the reverse-path. Empty when there is nothing to tell or nobody to tell it to."""
    if not origin.original.reverse_path:
        return []
    made = []
    for action in dict.fromkeys(report.action for report in reports):
        notice_id = new_message_id(context.now)
        chosen = [report for report in reports if report.action == action]
        headers, body = bounce.build(origin.original, chosen, origin.author, notice_id, context.now)
        recipient = NewRecipient(origin.original.reverse_path, origin.destination)
        message = NewMessage(
            id=notice_id,
            tenant=origin.tenant,
            pool=context.pool.name,
            domain=origin.domain,
            credential=MAILER_DAEMON,
            reverse_path="",
            recipients=(recipient,),
            headers=headers,
            body_size=len(body),
            eight_bit=not (headers + body).isascii(),
            received_at=context.now,
            expires_at=retry.expires_at(context.now, context.pool.retry),
            options=MailOptions(smtputf8=not headers.isascii(), require_tls=origin.require_tls),
            sign=origin.sign,
        )
        made.append(Notice(message, body))
    return made
