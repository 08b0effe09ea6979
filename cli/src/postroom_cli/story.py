"""Tells the story of a message in plain words, from its events, and what its errors mean. Pure."""

from collections.abc import Sequence

from postroom_cli.clients import Event, Message
from postroom_cli.show import when
from postroom_insight import explanations
from postroom_insight.explanations import Explanation

_WORDS = {
    "accepted": "was accepted",
    "delivered": "was delivered to",
    "deferred": "could not be delivered yet to",
    "bounced": "was refused for good for",
    "suppressed": "was not tried for",
    "expired": "was given up for",
    "ambiguous": "may have been delivered already to",
    "held": "was put on hold for",
    "released": "was released for",
    "retried": "was made due at once for",
    "deleted": "was deleted for",
    "bounced-later": "came back from",
    "complained": "was complained about by",
    "reported": "was reported about",
    "alerted": "attention is asked for",
    "slowed": "is slowed down:",
    "paused": "is paused:",
    "resumed": "may send again:",
    "dead-letter": "failed and had no sender to tell, for",
}
# What the catalogue of errors speaks of.
_FAILURES = frozenset({"deferred", "bounced", "expired", "bounced-later", "suppressed", "dead-letter"})


def sentence(event: Event) -> str:
    """One event as a sentence."""
    words = _WORDS.get(event.kind, event.kind)
    parts = [f"{when(event.at)}  {words}"]
    if event.recipient:
        parts.append(f"<{event.recipient}>")
    if event.attempt and event.kind in ("deferred", "bounced", "delivered", "expired", "ambiguous"):
        parts.append(f"(attempt {event.attempt})")
    said = " ".join(part for part in (str(event.code or ""), event.enhanced, event.text) if part)
    if event.remote and event.code:
        parts.append(f"by {event.remote}{_over(event.tls)}: {said}")
    elif said:
        parts.append(f"— {said}" if event.kind == "accepted" else f": {said}")
    if event.classification and event.kind not in ("delivered", "accepted"):
        parts.append(f"[{event.classification}]")
    return " ".join(parts)


def explanation(event: Event, sender: str = "") -> Explanation | None:
    """Of an event that tells of a failure; None for the others, and for what people did."""
    said_by_nobody = event.classification == "other" and not event.code  # a command of the postmaster, an expiry
    if event.kind not in _FAILURES or not event.classification or said_by_nobody:
        return None
    found = explanations.explain(f"{event.code or ''} {event.enhanced} {event.text}".strip(), event.classification)
    if found is None:
        return None
    return found.filled(sender=sender.rpartition("@")[2], domain=event.recipient.rpartition("@")[2], message_id=event.message)


def reasons(events: Sequence[Event], sender: str) -> list[Explanation]:
    """The distinct explanations of a story, in order."""
    found = [explanation(event, sender) for event in events]
    return list({one.name: one for one in found if one is not None}.values())


def advice(found: Explanation) -> list[str]:
    """An explanation as lines."""
    return [f"{found.title}: {found.cause}", f"  what to do: {found.remedy}", f"  where to look: {'; '.join(found.look)}"]


def wishes(message: Message) -> list[str]:
    """What the client asked for with the message."""
    lines = []
    if message.hold_until:
        lines.append(f"not to be sent before {when(message.hold_until)} (FUTURERELEASE)")
    if message.deliver_by:
        then = "else it is returned" if message.deliver_by_return else "else the delay is told"
        lines.append(f"to be delivered by {when(message.deliver_by)}, {then} (DELIVERBY)")
    if message.priority:
        lines.append(f"priority {message.priority} (MT-PRIORITY)")
    return lines


def outlook(message: Message) -> list[str]:
    """What happens next, per open recipient."""
    lines = []
    for recipient in message.recipients:
        match recipient.state:
            case "scheduled" if not recipient.attempts and recipient.due_at == message.hold_until:
                lines.append(f"held for <{recipient.address}> until {when(recipient.due_at)} as its sender asked")
            case "scheduled":
                lines.append(f"next attempt for <{recipient.address}> at {when(recipient.due_at)}; given up after {when(message.expires_at)}")
            case "leased":
                lines.append(f"an attempt for <{recipient.address}> is running")
            case "held":
                lines.append(f"<{recipient.address}> is on hold; postroom queue release {message.id} lets it go")
    return lines


def tell(message: Message, events: Sequence[Event]) -> list[str]:
    """The whole story."""
    sender = f"<{message.reverse_path}>" if message.reverse_path else "nobody (a notice of delivery)"
    head = f"Message {message.id} from {sender}, {message.size} octets, pool {message.pool}, submitted by {message.credential or '?'}"
    wished = wishes(message)
    why = [line for found in reasons(events, message.reverse_path) for line in advice(found)]
    return [head, *wished, *(sentence(event) for event in events), *outlook(message), *why]


def _over(tls: str) -> str:
    return f" over {tls}" if tls.startswith("TLS") else f" {tls or 'in clear'}"
