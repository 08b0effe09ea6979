"""Outgoing spam control: which numbers lead to which action, against whom, and when it ends."""

from collections import Counter

import pytest

from postroom_core.documents import Reputation, Thresholds
from postroom_delivery import reputation
from postroom_delivery.reputation import HOLD_MS, Sender
from postroom_delivery.spool.curbs import Curb
from postroom_delivery.spool.rollup import HOUR_MS

NOW = 500_000 * HOUR_MS
POLICY = Reputation()
APP, OTHER = Sender("t", "d.example", "app"), Sender("t", "d.example", "other")
BAD = {"results": 100, "unknown": 20}


def decide(found: dict[Sender, dict[str, int]], *curbs: Curb, now: int = NOW, policy: Reputation = POLICY) -> dict[str, tuple[str, str]]:
    changed = reputation.decide({(sender, "p"): Counter(of) for sender, of in found.items()}, {c.name: c for c in curbs}, lambda _: policy, now)
    return {curb.name: (curb.level, curb.signal) for curb in changed}


@pytest.mark.parametrize(
    ("numbers", "level", "signal"),
    [
        ({}, "none", ""),
        ({"results": 1000, "delivered": 1000}, "none", ""),
        # recipients that do not exist
        ({"results": 1000, "unknown": 49}, "none", ""),
        ({"results": 1000, "unknown": 50}, "alert", "unknown-recipients"),
        ({"results": 1000, "unknown": 100}, "slow", "unknown-recipients"),
        ({"results": 1000, "unknown": 200}, "pause", "unknown-recipients"),
        ({"results": 99, "unknown": 99}, "none", ""),  # below the minimum of recipients
        ({"results": 100, "unknown": 9}, "none", ""),  # below the minimum of bad ones
        ({"results": 100, "unknown": 100}, "pause", "unknown-recipients"),
        # complaints
        ({"delivered": 5000, "complained": 4}, "none", ""),
        ({"delivered": 5000, "complained": 5}, "alert", "complaints"),
        ({"delivered": 5000, "complained": 15}, "slow", "complaints"),
        ({"delivered": 5000, "complained": 50}, "pause", "complaints"),
        ({"delivered": 99, "complained": 50}, "none", ""),
        # refused as spam
        ({"results": 1000, "spam": 49}, "none", ""),
        ({"results": 1000, "spam": 300}, "pause", "spam"),
        # volume: never a pause by default, and nothing for who is new
        ({"accepted": 100_000}, "none", ""),
        ({"accepted": 100, "usual": 2400}, "none", ""),
        ({"accepted": 1000, "usual": 2400}, "alert", "volume"),
        ({"accepted": 4000, "usual": 2400}, "slow", "volume"),
        ({"accepted": 99, "usual": 24}, "none", ""),
        # the worst counts
        ({"results": 1000, "unknown": 50, "spam": 300, "delivered": 950}, "pause", "spam"),
    ],
)
def test_numbers_lead_to_a_level(numbers: dict[str, int], level: str, signal: str) -> None:
    found = reputation.judge(numbers, POLICY)
    assert (found.level, found.signal) == (level, signal)
    assert (level == "none") == (found.text == "")


def test_the_text_has_the_numbers() -> None:
    assert reputation.judge({"results": 120, "unknown": 31}, POLICY).text == "31 of 120 recipients do not exist (26 %; from 20 %)"
    assert reputation.judge({"delivered": 5000, "complained": 15}, POLICY).text == "15 of 5000 recipients complained (0.3 %; from 0.3 %)"


def test_the_narrowest_sender_that_explains_it_is_curbed_and_the_others_go_on() -> None:
    assert decide({APP: BAD, OTHER: {"results": 400, "unknown": 1}}) == {"credential:t/d.example/app": ("pause", "unknown-recipients")}
    many = {Sender("t", "d.example", f"c{number}"): {"results": 90, "unknown": 30} for number in range(3)}
    assert decide(many | {Sender("u", "e.example", "x"): {"results": 900}}) == {"domain:t/d.example": ("pause", "unknown-recipients")}
    domains = {Sender("t", f"d{number}.example", "app"): {"results": 90, "unknown": 30} for number in range(3)}
    assert decide(domains) == {"tenant:t": ("pause", "unknown-recipients")}


def test_what_a_curbed_sender_did_does_not_count_against_its_domain_while_it_is_curbed() -> None:
    paused = Curb("credential:t/d.example/app", "pause", "unknown-recipients", "", NOW, NOW + HOUR_MS, 100)
    assert decide({APP: BAD, OTHER: {"results": 10}}, paused) == {}


def test_a_level_rises_at_once_and_falls_only_when_its_time_is_over() -> None:
    name = APP.name
    alert = Curb(name, "alert", "unknown-recipients", "", NOW, NOW + HOLD_MS, 100)
    assert decide({APP: BAD}, alert) == {name: ("pause", "unknown-recipients")}
    pause = Curb(name, "pause", "unknown-recipients", "", NOW, NOW + 4 * HOUR_MS, 100)
    assert decide({APP: {"results": 100}}, pause) == {}
    assert decide({APP: {"results": 100}}, pause, now=NOW + 4 * HOUR_MS) == {name: ("none", "unknown-recipients")}
    assert decide({}, pause, now=NOW + 4 * HOUR_MS) == {name: ("none", "unknown-recipients")}
    assert decide({}, pause, now=NOW + 4 * HOUR_MS - 1) == {}
    assert decide({APP: BAD}, pause, now=NOW + 4 * HOUR_MS) == {name: ("pause", "unknown-recipients")}


def test_an_alert_that_is_still_deserved_goes_on_and_nobody_is_told_again() -> None:
    alert = Curb(APP.name, "alert", "unknown-recipients", "", NOW, NOW + HOLD_MS, 100)
    found = {(APP, "p"): Counter(results=1000, unknown=50)}
    assert reputation.decide(found, {APP.name: alert}, lambda _: POLICY, NOW + HOLD_MS // 4) == []
    (longer,) = reputation.decide(found, {APP.name: alert}, lambda _: POLICY, NOW + HOLD_MS // 2 + 1)
    assert (longer.level, longer.since, longer.until) == ("alert", NOW, NOW + HOLD_MS // 2 + 1 + HOLD_MS)
    assert reputation.changes({APP.name: alert}, [longer]) == []


def test_who_was_resumed_by_a_person_is_spared_for_a_while() -> None:
    pause = Curb(APP.name, "pause", "unknown-recipients", "20 of 100", NOW, NOW + 4 * HOUR_MS, 100)
    spared = reputation.resumed(pause, 3 * HOUR_MS, NOW + 1)
    assert (spared.level, reputation.in_force(spared, NOW + 1), spared.text) == ("none", "none", "by command; before: 20 of 100")
    assert decide({APP: BAD}, spared, now=NOW + 3 * HOUR_MS) == {}
    assert decide({APP: BAD}, spared, now=NOW + 3 * HOUR_MS + 1) == {APP.name: ("pause", "unknown-recipients")}


def test_observe_only_alerts_and_off_looks_at_nothing() -> None:
    assert decide({APP: BAD}, policy=Reputation(enforcement="Observe")) == {APP.name: ("alert", "unknown-recipients")}
    assert decide({APP: BAD}, policy=Reputation(enforcement="Off")) == {}


def test_a_threshold_that_is_left_out_never_acts() -> None:
    assert reputation.judge(BAD, Reputation(hard_bounces=Thresholds(alert=5))).level == "alert"
    assert reputation.judge(BAD, Reputation(hard_bounces=Thresholds())).level == "none"


def test_a_paused_sender_gets_a_reply_and_a_slowed_one_a_limit_also_by_what_it_belongs_to() -> None:
    for name in ("credential:t/d.example/app", "domain:t/d.example", "tenant:t"):
        curbs = {name: Curb(name, "pause", "spam", "40 of 100 …", NOW, NOW + HOUR_MS, 50)}
        reply = reputation.refusal(curbs, APP, NOW)
        assert reply is not None
        assert (reply.code, reply.enhanced) == (450, "4.7.1")
        assert reply.text.startswith(f"Sending by this {name.partition(':')[0]} is paused until ")
        assert reply.text.endswith("40 of 100 …")
        assert reputation.refusal(curbs, APP, NOW + HOUR_MS) is None
        assert reputation.refusal(curbs, Sender("u", "e.example", "app"), NOW) is None
    slowed = {APP.name: Curb(APP.name, "slow", "spam", "40 of 100", NOW, NOW + HOUR_MS, 50)}
    (allowance,) = reputation.allowances(slowed, APP, NOW)
    assert (allowance.maximum, allowance.window_seconds) == (50, 3600)
    assert reputation.allowances(slowed, OTHER, NOW) == ()


def test_facts_become_numbers() -> None:
    facts = [
        (("t", "d.example", "app", "p", ""), "accepted", -1, 7),
        (("t", "d.example", "app", "p", ""), "delivered", -1, 5),
        (("t", "d.example", "app", "p", ""), "delivery", 12, 5),
        (("t", "d.example", "app", "p", "unknown-user"), "bounced", -1, 2),
        (("t", "d.example", "app", "p", "disabled"), "bounced-later", -1, 1),
        (("t", "d.example", "app", "p", "blocked"), "bounced", -1, 3),
        (("t", "d.example", "app", "p", "blocked"), "deferred", -1, 9),
        (("t", "d.example", "app", "p", ""), "complained", -1, 1),
    ]
    found = reputation.counts(facts, [(("t", "d.example", "app", "p"), "accepted", -1, 48)])
    assert found == {
        (APP, "p"): Counter(accepted=7, delivered=5, results=10, unknown=3, spam=3, complained=1, usual=48),
    }
