"""Webhooks: which events a target is told, as which request, and what its answer means. Pure; webhook_sender has the loop and the sockets.

A target gets its domain's events in the order of their numbers, at most a page in one POST: a CloudEvents 1.0 batch in JSON, signed as Standard
Webhooks say (HMAC-SHA256 over id, time and body). One request at a time, and the next only after a 2xx: so the events of every message arrive in
order, whatever fails. A failed request is repeated with the same id and the same events; what is older than GIVE_UP_MS is dropped and counted.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from postroom_core.documents import SenderDomain, Webhook, webhook_key
from postroom_delivery.spool.hooks import HookEvent, HookState

# Kind of event → what a subscriber asks for. An ambiguous attempt is repeated, so to the outside it is a deferral.
TOLD = {
    **{"delivered": "delivered", "deferred": "deferred", "ambiguous": "deferred", "bounced": "bounced", "expired": "bounced"},
    **{"dead-letter": "bounced", "bounced-later": "bounced", "complained": "complained", "suppressed": "suppressed"},
}
CONTENT_TYPE = "application/cloudevents-batch+json"
# Events stay in the spool for a week after the acceptance of their message: a target that is away over a weekend misses nothing.
GIVE_UP_MS = 3 * 86_400_000
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 1_000, 300_000
# What a target may ask for by Retry-After.
LONGEST_WISH_MS = 3_600_000
# A deployment or a restart takes minutes; after an hour somebody must look.
DEAD_MS = 3_600_000
# A reply of a peer: as much as anybody reads.
MOST_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook with the domain that it is about."""

    domain: SenderDomain
    webhook: Webhook

    @property
    def name(self) -> str:
        """In the spool, and for people."""
        return f"{self.domain.name}/{self.webhook.name}"


@dataclass(frozen=True, slots=True)
class Batch:
    """What is told next: `events` of those up to number `last`; `lost` were too old. Without events there is nothing to send."""

    events: tuple[HookEvent, ...]
    last: int
    lost: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a target. `status` 0: none, and `text` says why. `wait_ms` is its Retry-After."""

    status: int
    text: str = ""
    wait_ms: int = 0

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


def targets(domains: Iterable[SenderDomain]) -> dict[str, Target]:
    """By name."""
    found = [Target(domain, webhook) for domain in domains for webhook in domain.webhooks]
    return {target.name: target for target in found}


def batch(page: Sequence[HookEvent], target: Target, state: HookState, now: int) -> Batch:
    """Of a page that begins after the cursor; while a request is repeated, only as far as it went."""
    here = [event for event in page if not state.upto or event.number <= state.upto]
    wanted = [event for event in here if event.domain == target.domain.name and TOLD.get(event.kind) in target.webhook.events]
    fresh = tuple(event for event in wanted if event.at >= now - GIVE_UP_MS)
    # Events that a repeated request was about may have been swept away: then the page begins behind it.
    last = here[-1].number if here else state.upto or state.cursor
    return Batch(fresh, last, len(wanted) - len(fresh))


def body(chosen: Batch) -> bytes:
    """The CloudEvents batch."""
    return json.dumps([_cloud_event(event) for event in chosen.events], separators=(",", ":")).encode()


def _cloud_event(event: HookEvent) -> dict[str, object]:
    told = TOLD[event.kind]
    data: dict[str, object] = {
        **{"message": event.message, "recipient": event.recipient, "tenant": event.tenant, "domain": event.domain},
        **{"credential": event.credential, "pool": event.pool, "kind": event.kind, "attempt": event.attempt},
        **{"class": event.classification, "code": event.code, "enhancedCode": event.enhanced, "text": event.text[:MOST_TEXT]},
        **{"remote": event.remote, "campaign": event.campaign},
    }
    return {
        "specversion": "1.0",
        "id": str(event.number),
        "source": f"/domains/{event.domain}",
        "type": f"dev.postroom.mail.{told}",
        "subject": event.message,
        "time": datetime.fromtimestamp(event.at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {name: value for name, value in data.items() if value not in ("", 0)},
    }


def headers(target: Target, chosen: Batch, content: bytes, now: int) -> dict[str, str]:
    """Standard Webhooks: one signature for each secret that is valid now. The id is the same whenever the same events are sent."""
    identity = f"{target.name}:{chosen.events[0].number}-{chosen.events[-1].number}"
    seconds = str(now // 1000)
    signed = b".".join((identity.encode(), seconds.encode(), content))
    made = [base64.b64encode(hmac.digest(webhook_key(secret), signed, hashlib.sha256)).decode() for secret in target.webhook.secrets]
    return {
        "Content-Type": CONTENT_TYPE,
        "webhook-id": identity,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in made),
    }


def after(state: HookState, chosen: Batch, answer: Answer | None, now: int, jitter: float) -> HookState:
    """What follows; `answer` None: there was nothing to send. `jitter` is from 0 to 1: targets that failed together are not tried together."""
    if answer is None:
        return replace(state, cursor=max(state.cursor, chosen.last), upto=0, lost=state.lost + chosen.lost)
    told = answer.text or f"status {answer.status}"
    if answer.good:
        sent = state.sent + len(chosen.events)
        moved = replace(state, cursor=max(state.cursor, chosen.last), upto=0, sent=sent, lost=state.lost + chosen.lost)
        return replace(moved, failures=0, failing_since=0, next_at=0, last_at=now, last_text=told)
    failures = state.failures + 1
    pause = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(failures - 1, 20))
    pause = max(round(pause * (0.8 + 0.4 * jitter)), min(answer.wait_ms, LONGEST_WISH_MS))
    since = state.failing_since or now
    return replace(state, upto=chosen.last, failures=failures, failing_since=since, next_at=now + pause, last_at=now, last_text=told)


def health(state: HookState, now: int) -> str:
    """working, failing, or dead: failing for an hour and more; it is tried all the same."""
    if not state.failing_since:
        return "working"
    return "dead" if now - state.failing_since >= DEAD_MS else "failing"


def waiting(target: Target, backlog: Iterable[tuple[str, int, int]]) -> tuple[int, int]:
    """(how many events wait, time of the first; 0 when none does)."""
    found = [(count, at) for kind, count, at in backlog if TOLD.get(kind) in target.webhook.events]
    return sum(count for count, _ in found), min((at for _, at in found), default=0)
