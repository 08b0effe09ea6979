"""Tells the story of a message in plain words, from its events. Pure."""

from collections.abc import Sequence

from postroom_cli.clients import Event, Message
from postroom_cli.show import when

_WORDS = {
    "accepted": "was accepted",
    "delivered": "was delivered to",
    "deferred": "could not be delivered yet to",
    "bounced": "was refused for good for",
    "expired": "was given up for",
    "ambiguous": "may have been delivered already to",
    "held": "was put on hold for",
    "released": "was released for",
    "retried": "was made due at once for",
    "deleted": "was deleted for",
    "dead-letter": "failed and had no sender to tell, for",
}


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
        parts.append(f"by {event.remote}{' over ' + event.tls if event.tls else ' in clear'}: {said}")
    elif said:
        parts.append(f"— {said}" if event.kind == "accepted" else f": {said}")
    if event.classification and event.kind not in ("delivered", "accepted"):
        parts.append(f"[{event.classification}]")
    return " ".join(parts)


def outlook(message: Message) -> list[str]:
    """What happens next, per open recipient."""
    lines = []
    for recipient in message.recipients:
        match recipient.state:
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
    return [head, *(sentence(event) for event in events), *outlook(message)]
