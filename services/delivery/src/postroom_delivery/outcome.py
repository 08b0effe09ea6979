"""What an attempt comes to, per recipient. An attempt never raises for what a peer did; unknown faults are Deferred, never Bounced."""

from dataclasses import dataclass, replace

from postroom_core.reply import Reply
from postroom_delivery.classify import Action, Class, Table, classify, default_action


@dataclass(frozen=True, slots=True)
class Cause:
    """Why. `status` is an enhanced code (RFC 3463); `reply` is the peer's, None when the fault is found on our side.

    `tls_result` is the type of a failure that a report about TLS tells (RFC 8460 section 4.3).
    """

    status: str
    text: str
    classification: Class
    reply: Reply | None = None
    tls_result: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The peer answered the final dot with 2xx: it owns the message now."""

    reply: Reply
    dsn: bool = False  # the peer understands DSN and has our NOTIFY


@dataclass(frozen=True, slots=True)
class Deferred:
    """Later. `ambiguous`: the connection ended between the final dot and its reply."""

    cause: Cause
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class Bounced:
    """Never. `suppressed`: not even tried, because of the suppression list."""

    cause: Cause
    suppressed: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """Not tried: goes back as it was."""


Outcome = Delivered | Deferred | Bounced | Released


def from_reply(reply: Reply) -> Deferred | Bounced:
    """What a reply that is not the wanted one means: 5xx is final; everything else, an unexpected 2xx or 3xx too, is for later."""
    status = reply.enhanced or ("5.0.0" if reply.kind == 5 else "4.0.0")
    cause = Cause(status, str(reply), classify(reply) if reply.kind in (4, 5) else Class.OTHER, reply)
    return Bounced(cause) if reply.kind == 5 else Deferred(cause)


def later(status: str, text: str, classification: Class, *, tls_result: str = "") -> Deferred:
    """A temporary fault found on our side."""
    return Deferred(Cause(status, text, classification, tls_result=tls_result))


def never(status: str, text: str, classification: Class, *, tls_result: str = "") -> Bounced:
    """A permanent fault found on our side."""
    return Bounced(Cause(status, text, classification, tls_result=tls_result))


@dataclass(frozen=True, slots=True)
class Judged:
    """An outcome as the pool's table sees it, and what else is to be done."""

    outcome: Outcome
    action: Action


def judge(outcome: Outcome, table: Table) -> Judged:
    """What a table makes of an outcome: its class, and whether it is final after all. Faults found on our side keep what they are."""
    if isinstance(outcome, (Delivered, Released)):
        return Judged(outcome, Action.RETRY)
    cause, final = outcome.cause, isinstance(outcome, Bounced)
    if cause.reply is None or cause.reply.kind not in (4, 5):
        return Judged(outcome, default_action(Class.OTHER, final=final))
    judgement = table.judge(cause.reply, final=final)
    cause = replace(cause, classification=judgement.classification)
    match judgement.action:
        case Action.RETRY | Action.RETRY_SLOWLY | Action.SUSPEND:
            return Judged(Deferred(cause), judgement.action)
        case Action.BOUNCE | Action.SUPPRESS:
            return Judged(Bounced(replace(cause, status=f"5{cause.status[1:]}")), judgement.action)
        case Action.REDUCE_RATE | Action.ALERT:
            return Judged(replace(outcome, cause=cause), judgement.action)
