"""The life of DKIM keys under a virtual clock: every step, and over 400 days with DNS and signers that misbehave the invariants hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom_operator.plan.dkim import FORGET_AFTER, PASSES, Key, Policy, Rotation, Seen, State, advance

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = Policy(
    algorithms=("RSA2048", "Ed25519"),
    interval=30 * DAY,
    overlap=7 * DAY,
    publish_timeout=3 * DAY,
    check_every=timedelta(seconds=30),
    settle=timedelta(minutes=10),
)


@dataclass
class Platform:
    """A domain's keys, the DNS and the signers; one call of `step` is one reconcile."""

    policy: Policy = POLICY
    now: datetime = START
    keys: tuple[Key, ...] = ()
    dns_broken: bool = False
    signers_broken: bool = False
    made: int = 0
    shown: dict[str, datetime] = field(default_factory=dict)  # selector → since when its record is published
    last: Rotation = field(default_factory=lambda: Rotation(()))

    def seen(self) -> Mapping[str, Seen]:
        wanted = {key.selector for key in self.keys if key.state != State.REVOKED}
        if not self.dns_broken:
            self.shown = {selector: self.shown.get(selector, self.now) for selector in wanted}
        return {key.selector: self._look(key.selector) for key in self.keys}

    def _look(self, selector: str) -> Seen:
        there = selector in self.shown
        return Seen(self.now, 2 if there else 0, 2, gone=not there, negative_ttl=900)

    def step(self) -> Rotation:
        held = frozenset() if self.signers_broken else frozenset((*self.last.standby, *self.last.signing))
        rotation = advance(self.keys, self.seen(), held, self.policy, self.now)
        created = []
        for algorithm in rotation.create:
            self.made += 1
            created.append(Key(f"s{self.made}", algorithm, State.PUBLISHING, self.now, trigger=self.policy.trigger))
        self.last = rotation
        self.keys = (*rotation.keys, *created)
        return rotation

    def run(self, duration: timedelta, pace: timedelta = timedelta(minutes=1)) -> None:
        end = self.now + duration
        while self.now < end:
            self.now += pace
            self.step()

    def states(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key in self.keys:
            found.setdefault(key.algorithm, []).append(str(key.state))
        return found


def test_the_first_keys_are_made_at_once_and_sign_when_the_world_and_the_signers_have_them() -> None:
    platform = Platform()
    assert platform.step().create == ("RSA2048", "Ed25519")
    platform.run(timedelta(minutes=14))
    assert platform.states() == {"RSA2048": ["Publishing"], "Ed25519": ["Publishing"]}
    assert platform.last.reason == "WaitingForDNS"
    platform.run(timedelta(minutes=3))  # the negative TTL of 900 s has passed
    assert platform.states() == {"RSA2048": ["Active"], "Ed25519": ["Active"]}
    assert set(platform.last.signing) == {"s1", "s2"}
    assert platform.last.reason == "Idle"


def test_a_key_waits_for_every_signer() -> None:
    platform = Platform(signers_broken=True)
    platform.run(DAY)
    assert platform.states() == {"RSA2048": ["Published"], "Ed25519": ["Published"]}
    assert (platform.last.reason, platform.last.signing) == ("WaitingForSigners", ())
    assert set(platform.last.standby) == {"s1", "s2"}
    platform.signers_broken = False
    platform.run(timedelta(minutes=5))
    assert set(platform.last.signing) == {"s1", "s2"}


def test_a_key_that_was_looked_at_often_enough_is_written_no_more_while_it_waits() -> None:
    """Else a look would be a write, and an operator that dies at its first write would never come to the other key."""
    platform = Platform(signers_broken=True)
    platform.run(HOUR)
    assert {key.state for key in platform.keys} == {State.PUBLISHED}
    before = platform.keys
    platform.run(HOUR)
    assert platform.keys == before


def test_nothing_is_switched_because_time_ran_out() -> None:
    platform = Platform()
    platform.run(HOUR)
    before = platform.last.signing
    platform.dns_broken = True
    platform.run(60 * DAY, pace=HOUR)
    assert platform.last.signing == before
    assert platform.last.reason == "PublishTimeout"
    assert "goes on signing" in platform.last.message


def test_rotation_is_one_algorithm_at_a_time_and_the_old_record_stays_for_the_overlap() -> None:
    platform = Platform()
    platform.run(HOUR)
    platform.run(30 * DAY - HOUR, pace=HOUR)
    platform.run(timedelta(minutes=20))
    assert sum(key.state in (State.PUBLISHING, State.PUBLISHED) for key in platform.keys) == 1
    platform.run(2 * HOUR)
    assert platform.states() == {"RSA2048": ["Retiring", "Active"], "Ed25519": ["Retiring", "Active"]}
    assert platform.last.reason == "Overlap"
    platform.run(7 * DAY - 3 * HOUR, pace=HOUR)
    assert {"s1", "s2"} <= platform.shown.keys()
    platform.run(4 * HOUR)
    assert platform.states() == {"RSA2048": ["Active"], "Ed25519": ["Active"]}
    assert {"s1", "s2"}.isdisjoint(platform.shown)


def test_a_new_trigger_rotates_now_and_an_old_one_does_not_again() -> None:
    platform = Platform()
    platform.run(HOUR)
    platform.policy = replace(POLICY, trigger="leaked")
    platform.run(3 * HOUR)
    made = platform.made
    assert made == 4
    platform.run(5 * DAY, pace=HOUR)
    assert platform.made == made


def test_a_rotation_that_must_wait_does_not_run_in_circles() -> None:
    """An overdue key asked to be looked at every second."""
    platform = Platform(policy=replace(POLICY, may_rotate=False))
    platform.run(HOUR)
    platform.run(31 * DAY, pace=6 * HOUR)
    assert platform.last.wake_in == timedelta(hours=1)


def test_the_platforms_budget_holds_a_rotation_back_but_never_a_first_key() -> None:
    platform = Platform(policy=replace(POLICY, may_rotate=False))
    platform.run(40 * DAY, pace=HOUR)
    assert platform.made == 2
    platform.policy = POLICY
    platform.run(HOUR)
    assert platform.made > 2


def test_an_imported_key_signs_at_once_and_stays_until_its_successor_signs() -> None:
    imported = Key("old", "RSA2048", State.ACTIVE, START, imported=True, published=START, activated=START)
    platform = Platform(policy=replace(POLICY, imported=frozenset({"old"})), keys=(imported,))
    platform.run(60 * DAY, pace=HOUR)
    assert (platform.made, platform.last.signing) == (0, ("old",))
    platform.policy = POLICY
    for _ in range(200):
        platform.run(timedelta(minutes=1))
        assert platform.last.signing
    assert "old" not in platform.last.signing
    assert next(key.state for key in platform.keys if key.selector == "old") == State.RETIRING


def test_a_record_that_vanishes_before_the_switch_begins_anew_and_afterwards_changes_nothing() -> None:
    platform = Platform(signers_broken=True)
    platform.run(HOUR)
    platform.shown, platform.dns_broken = {}, True
    platform.run(timedelta(minutes=2))
    assert platform.states() == {"RSA2048": ["Publishing"], "Ed25519": ["Publishing"]}
    platform.dns_broken = platform.signers_broken = False
    platform.run(HOUR)
    before = platform.last.signing
    platform.shown, platform.dns_broken = {}, True
    platform.run(DAY)
    assert platform.last.signing == before


def test_an_algorithm_that_is_no_longer_wanted_ends_and_one_that_is_added_begins() -> None:
    platform = Platform()
    platform.run(HOUR)
    platform.policy = replace(POLICY, algorithms=("RSA2048",))
    platform.run(8 * DAY, pace=HOUR)
    assert platform.states() == {"RSA2048": ["Active"]}
    platform.policy = POLICY
    platform.run(HOUR)
    assert platform.states() == {"RSA2048": ["Active"], "Ed25519": ["Active"]}


def test_a_revoked_key_whose_record_nobody_removes_is_forgotten_after_a_week() -> None:
    platform = Platform()
    platform.run(HOUR)
    platform.policy = replace(POLICY, trigger="x")
    platform.run(2 * HOUR)
    platform.dns_broken = True
    platform.run(7 * DAY, pace=HOUR)
    revoked = [key for key in platform.keys if key.state == State.REVOKED]
    assert revoked
    platform.run(FORGET_AFTER, pace=HOUR)
    assert [key for key in platform.keys if key.state == State.REVOKED] == []


@pytest.mark.parametrize("agree", [0, 1])
def test_one_server_that_does_not_agree_holds_the_key_back(agree: int) -> None:
    key = Key("s", "RSA2048", State.PUBLISHING, START, published=START, passes=PASSES - 1, last_pass=START + HOUR)
    now = START + 2 * HOUR
    rotation = advance([key], {"s": Seen(now, agree, 2)}, frozenset(), POLICY, now)
    assert (rotation.keys[0].state, rotation.keys[0].passes) == (State.PUBLISHING, 0)
    rotation = advance([key], {"s": Seen(now, 2, 2)}, frozenset(), POLICY, now)
    assert rotation.keys[0].state == State.PUBLISHED


def test_looks_from_before_the_record_was_wanted_and_looks_too_close_together_do_not_count() -> None:
    key = Key("s", "RSA2048", State.PUBLISHING, START, published=START + HOUR)
    now = START + HOUR
    assert advance([key], {"s": Seen(START, 2, 2)}, frozenset(), POLICY, now).keys[0].passes == 0
    once = advance([key], {"s": Seen(now, 2, 2)}, frozenset(), POLICY, now).keys[0]
    assert once.passes == 1
    again = advance([once], {"s": Seen(now + timedelta(seconds=5), 2, 2)}, frozenset(), POLICY, now + timedelta(seconds=5)).keys[0]
    assert again.passes == 1


Weather = tuple[int, bool, bool, str, tuple[str, ...]]
WEATHER = st.lists(
    st.tuples(
        st.integers(min_value=1, max_value=20),  # days
        st.booleans(),  # DNS broken
        st.booleans(),  # signers broken
        st.sampled_from(["", "a", "b", "c"]),  # trigger
        st.sampled_from([("RSA2048",), ("RSA2048", "Ed25519")]),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=8, deadline=None)
@given(WEATHER)
def test_over_400_days_a_domain_always_signs_and_never_with_a_record_that_is_not_shown(
    weather: list[tuple[int, bool, bool, str, tuple[str, ...]]],
) -> None:
    """Once a domain has signed it always has an active RSA key; what signs was shown before it signed; a record that signed stays for the overlap."""
    platform = Platform()
    platform.run(HOUR)
    assert platform.last.signing
    ended: dict[str, datetime] = {}
    for days, dns_broken, signers_broken, trigger, algorithms in weather:
        platform.dns_broken, platform.signers_broken = dns_broken, signers_broken
        platform.policy = replace(POLICY, trigger=trigger, algorithms=algorithms)
        until = min(platform.now + days * DAY, START + 400 * DAY)
        while platform.now < until:
            before = platform.keys
            platform.now += 2 * HOUR
            platform.step()
            _holds(platform, before, ended)


def _holds(platform: Platform, before: tuple[Key, ...], ended: dict[str, datetime]) -> None:
    active = [key for key in platform.keys if key.state == State.ACTIVE]
    assert any(key.algorithm == "RSA2048" for key in active)
    assert all(key.selector in platform.shown for key in active)
    assert sum(key.state in (State.PUBLISHING, State.PUBLISHED) for key in platform.keys) <= 2
    was = {key.selector: key.state for key in before}
    for key in platform.keys:
        if key.state == State.ACTIVE and was.get(key.selector) != State.ACTIVE:
            assert was[key.selector] == State.PUBLISHED
        if key.state == State.RETIRING:
            ended.setdefault(key.selector, platform.now)
        if key.state == State.REVOKED and was.get(key.selector) != State.REVOKED:
            assert platform.now - ended[key.selector] >= POLICY.overlap
    gone = was.keys() - {key.selector for key in platform.keys}
    assert all(was[selector] == State.REVOKED for selector in gone)


@settings(max_examples=50, deadline=None)
@given(st.integers(min_value=0, max_value=400), st.booleans())
def test_a_step_that_is_repeated_after_a_crash_changes_nothing_more(steps: int, dns_broken: bool) -> None:
    """Storing the states and dying before anything else: the next look at the same moment goes on from there and never skips a state."""
    platform = Platform(dns_broken=dns_broken)
    for _ in range(steps):
        platform.now += timedelta(minutes=7)
        platform.step()
    first = advance(platform.keys, platform.seen(), frozenset(), platform.policy, platform.now)
    again = advance(first.keys, platform.seen(), frozenset(), platform.policy, platform.now)
    order = list(State)
    for key in again.keys:
        old = next(other for other in platform.keys if other.selector == key.selector)
        assert order.index(key.state) - order.index(old.state) <= 2
    assert set(first.signing) <= {key.selector for key in platform.keys if key.state in (State.ACTIVE, State.PUBLISHED)}
