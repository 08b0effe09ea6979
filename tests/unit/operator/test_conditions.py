"""Conditions: when they move, what is news, and how Ready summarises them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from postroom_operator.kube.children import covers, holds
from postroom_operator.plan.conditions import Condition, merged, moment, ready, stamp, transitions, when
from postroom_operator.plan.names import APPLIED, digest

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_time_of_a_transition_moves_only_with_the_status() -> None:
    first = merged([], [Condition("A", "False", "One")], 1, NOW)
    same = merged(first, [Condition("A", "False", "Two", "other words")], 2, NOW + timedelta(hours=1))
    assert same[0]["lastTransitionTime"] == stamp(NOW)
    assert (same[0]["reason"], same[0]["observedGeneration"]) == ("Two", 2)
    turned = merged(same, [Condition("A", "True", "Two")], 3, NOW + timedelta(hours=2))
    assert turned[0]["lastTransitionTime"] == stamp(NOW + timedelta(hours=2))


def test_news_is_a_changed_status_or_reason_and_not_a_changed_message() -> None:
    first = merged([], [Condition("A", "False", "One", "x")], 1, NOW)
    assert transitions([], first) == first
    assert transitions(first, merged(first, [Condition("A", "False", "One", "y")], 2, NOW)) == []
    assert len(transitions(first, merged(first, [Condition("A", "False", "Two", "x")], 2, NOW))) == 1


def test_ready_tells_the_first_that_is_not() -> None:
    conditions = [Condition("A", "True", "Fine"), Condition("B", "False", "Broken", "do this"), Condition("C", "Unknown", "Asking")]
    assert ready(conditions, ["A", "B", "C"]) == Condition("Ready", "False", "Broken", "B: do this")
    assert ready(conditions, ["A", "C"]) == Condition("Ready", "Unknown", "Asking", "C")
    assert ready(conditions, ["A", "missing"]).status == "True"
    assert when(True, "A", "Good", "Bad", "words") == Condition("A", "True", "Good")
    assert when(False, "A", "Good", "Bad", "words") == Condition("A", "False", "Bad", "words")


@given(st.datetimes(timezones=st.just(UTC)).filter(lambda found: found.year >= 1000))
def test_times_survive_being_written_down(found: datetime) -> None:
    whole = found.replace(microsecond=0)
    assert moment(stamp(whole)) == whole


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4), st.text(min_size=4, max_size=6), JSON)
def test_an_object_covers_what_was_applied_whatever_others_add(body: dict[str, object], name: str, value: object) -> None:
    assert covers({**body, name: value}, body)


def test_a_changed_field_a_changed_plan_and_a_shorter_list_are_seen() -> None:
    body: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 1}], "a": 1}}
    known: dict[str, Any] = {
        "metadata": {"name": "x", "annotations": {APPLIED: digest(body)}},
        "spec": {"ports": [{"port": 1, "default": True}], "a": 1, "b": 2},
    }
    assert holds(known, body)
    assert not holds({**known, "spec": {**known["spec"], "a": 2}}, body)
    assert not holds({**known, "spec": {**known["spec"], "ports": []}}, body)
    assert not holds(known, {**body, "spec": {"ports": [{"port": 1}]}})  # a field was dropped from the plan
