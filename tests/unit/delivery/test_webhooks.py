"""What a webhook is told, how it is signed, and what its answer means."""

import base64
import hashlib
import hmac
import json

import pytest

from postroom_core.documents import SenderDomain, Webhook, webhook_key
from postroom_delivery import webhooks
from postroom_delivery.spool.hooks import HookEvent, HookState
from postroom_delivery.webhooks import DEAD_MS, GIVE_UP_MS, LONGEST_PAUSE_MS, LONGEST_WISH_MS, Answer, Batch, Target

NOW = 1_767_571_200_000
SECRETS = ("whsec_" + base64.b64encode(b"k" * 24).decode(), "whsec_" + base64.b64encode(b"o" * 32).decode())
ALL = ("delivered", "deferred", "bounced", "complained", "suppressed")


def target(*events: str, secrets: tuple[str, ...] = SECRETS[:1]) -> Target:
    hook = Webhook.model_validate({"name": "app", "url": "https://h.example/x", "events": events or ALL, "secrets": secrets})
    return Target(SenderDomain(name="d.example", tenant="t", signed=False, webhooks=(hook,)), hook)


def event(number: int, kind: str = "delivered", *, domain: str = "d.example", at: int = NOW, text: str = "OK") -> HookEvent:
    return HookEvent(number, at, "m1", "b@x.example", kind, 250, "2.0.0", text, "", "mx.test", 1, "t", domain, "app", "", "default/main")


def test_a_target_gets_the_events_of_its_domain_that_it_asked_for_and_passes_over_the_others() -> None:
    page = [event(1, "accepted"), event(2), event(3, domain="other.example"), event(4, "bounced"), event(5, "retried")]
    chosen = webhooks.batch(page, target("bounced"), HookState("d.example/app", 0), NOW)
    assert ([found.number for found in chosen.events], chosen.last, chosen.lost) == ([4], 5, 0)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        *(("delivered", "delivered"), ("deferred", "deferred"), ("ambiguous", "deferred"), ("bounced", "bounced"), ("expired", "bounced")),
        *(("bounced-later", "bounced"), ("dead-letter", "bounced"), ("complained", "complained"), ("suppressed", "suppressed")),
        *((kind, None) for kind in ("accepted", "held", "released", "retried", "deleted", "reported")),
    ],
)
def test_each_kind_of_event_is_told_as_one_type_or_not_at_all(kind: str, told: str | None) -> None:
    chosen = webhooks.batch([event(1, kind)], target(), HookState("d.example/app", 0), NOW)
    assert [found["type"] for found in json.loads(webhooks.body(chosen))] == ([f"dev.postroom.mail.{told}"] if told else [])


def test_the_body_is_a_cloudevents_batch() -> None:
    (found,) = json.loads(webhooks.body(Batch((event(7, text="x" * 5000 + "\udcff"),), 7, 0)))
    assert {name: found[name] for name in ("specversion", "id", "source", "subject", "time", "datacontenttype")} == {
        "specversion": "1.0",
        "id": "7",
        "source": "/domains/d.example",
        "subject": "m1",
        "time": "2026-01-05T00:00:00.000Z",
        "datacontenttype": "application/json",
    }
    assert (found["data"]["recipient"], found["data"]["code"], len(found["data"]["text"])) == ("b@x.example", 250, 1000)


def test_the_signature_is_that_of_the_standard_with_one_for_each_secret() -> None:
    chosen = Batch((event(7), event(9)), 9, 0)
    content = webhooks.body(chosen)
    found = webhooks.headers(target(secrets=SECRETS), chosen, content, NOW + 500)
    assert (found["webhook-id"], found["webhook-timestamp"]) == ("d.example/app:7-9", str(NOW // 1000))
    signed = f"{found['webhook-id']}.{found['webhook-timestamp']}.".encode() + content
    wanted = ["v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in (b"k" * 24, b"o" * 32)]
    assert found["webhook-signature"] == " ".join(wanted)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!", "secret", "whsec_" + base64.b64encode(b"k" * 23).decode(), SECRETS[0][6:]])
def test_what_is_no_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|padding|only") as raised:
        webhook_key(text)
    assert not text[6:] or text[6:] not in str(raised.value)
    assert SECRETS[0] not in repr(target())


def test_a_failed_request_is_repeated_with_the_same_events_after_growing_pauses() -> None:
    state, page = HookState("d.example/app", 0), [event(1), event(2)]
    pauses = []
    for _ in range(12):
        chosen = webhooks.batch(page, target(), state, NOW)
        assert [found.number for found in chosen.events] == [1, 2]
        state = webhooks.after(state, chosen, Answer(500), NOW, 0.5)
        pauses.append(state.next_at - NOW)
        page = [event(1), event(2), event(3)]
    assert pauses[:4] == [1000, 2000, 4000, 8000]
    assert (pauses[-1], state.failures, state.cursor) == (LONGEST_PAUSE_MS, 12, 0)
    done = webhooks.after(state, webhooks.batch(page, target(), state, NOW), Answer(204), NOW + 1, 0.5)
    assert (done.cursor, done.upto, done.sent, done.failures, done.failing_since, done.next_at) == (2, 0, 2, 0, 0, 0)
    assert [found.number for found in webhooks.batch(page[2:], target(), done, NOW).events] == [3]


@pytest.mark.parametrize(("wish", "pause"), [(0, 1000), (60_000, 60_000), (10**9, LONGEST_WISH_MS)])
def test_a_target_may_ask_for_time_within_bounds(wish: int, pause: int) -> None:
    state = webhooks.after(HookState("a", 0), Batch((event(1),), 1, 0), Answer(429, wait_ms=wish), NOW, 0.5)
    assert state.next_at - NOW == pause


def test_what_is_too_old_is_dropped_and_counted() -> None:
    state = HookState("d.example/app", 0, upto=2, failures=9, failing_since=1)
    old = [event(1, at=NOW - GIVE_UP_MS - 1), event(2, at=NOW - GIVE_UP_MS - 1)]
    chosen = webhooks.batch(old, target(), state, NOW)
    assert (chosen.events, chosen.lost) == ((), 2)
    moved = webhooks.after(state, chosen, None, NOW, 0)
    assert (moved.cursor, moved.lost, moved.upto, moved.failures) == (2, 2, 0, 9)


def test_events_that_were_swept_while_a_request_failed_are_passed_over() -> None:
    state = HookState("d.example/app", 0, upto=5)
    chosen = webhooks.batch([event(8)], target(), state, NOW)
    assert (chosen.events, chosen.last) == ((), 5)
    moved = webhooks.after(state, chosen, None, NOW, 0)
    assert (moved.cursor, moved.upto) == (5, 0)


def test_a_target_is_dead_after_an_hour_of_failures() -> None:
    state = HookState("a", 0, failing_since=NOW)
    ages = (0, DEAD_MS - 1, DEAD_MS)
    assert [webhooks.health(state, NOW + age) for age in ages] == ["failing", "failing", "dead"]
    assert webhooks.health(HookState("a", 0), NOW) == "working"


def test_what_waits_is_counted_for_what_was_asked_for() -> None:
    backlog = [("accepted", 5, 1), ("delivered", 3, 20), ("bounced", 2, 10), ("expired", 1, 5)]
    assert webhooks.waiting(target("bounced"), backlog) == (3, 5)
    assert webhooks.waiting(target("complained"), backlog) == (0, 0)
