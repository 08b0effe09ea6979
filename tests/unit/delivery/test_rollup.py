"""Analytics: facts add up, percentiles merge, questions are checked."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_delivery import analytics
from postroom_delivery.spool import rollup
from postroom_delivery.spool.rollup import HOUR_MS, MINUTE_MS, Happening, fold

EVENT = Happening(1, HOUR_MS + 5 * MINUTE_MS + 7, "delivered", "success", "b@x.example", 1, "t", "d.example", "app", "spring", "p", HOUR_MS)


def event(**values: object) -> Happening:
    return Happening(**({name: getattr(EVENT, name) for name in Happening.__slots__} | values))


def test_an_event_counts_in_its_hour_with_all_dimensions_and_in_its_minute_with_none() -> None:
    facts = {(fact.grain, fact.start, fact.campaign, fact.destination, fact.measure): count for fact, count in fold([EVENT, EVENT]).items()}
    assert facts[HOUR_MS, HOUR_MS, "spring", "x.example", "delivered"] == 2
    assert facts[MINUTE_MS, HOUR_MS + 5 * MINUTE_MS, "", "", "delivered"] == 2
    assert {key[-1] for key in facts} == {"delivered", rollup.FIRST_ATTEMPT, rollup.DELIVERY}


def test_a_second_attempt_is_no_first_attempt_and_commands_are_no_results() -> None:
    assert {fact.measure for fact in fold([event(kind="deferred", attempt=2, classification="greylist")])} == {"deferred"}
    assert fold([event(kind=kind) for kind in ("held", "released", "retried")]) == {}


@given(st.lists(st.tuples(st.sampled_from(["delivered", "deferred", "bounced"]), st.integers(0, 10 * HOUR_MS)), max_size=30), st.integers(0, 30))
def test_facts_of_two_parts_add_up_to_the_facts_of_the_whole(drawn: list[tuple[str, int]], cut: int) -> None:
    events = [event(kind=kind, at=at) for kind, at in drawn]
    assert fold(events[:cut]) + fold(events[cut:]) == fold(events)


@given(st.lists(st.integers(2, 7 * 24 * HOUR_MS), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_within_ten_percent(latencies: list[int], share: float) -> None:
    buckets: dict[int, int] = {}
    for latency in latencies:
        buckets[rollup.bucket(latency)] = buckets.get(rollup.bucket(latency), 0) + 1
    exact = sorted(latencies)[math.ceil(share * len(latencies)) - 1]
    assert rollup.percentile(buckets, share) == pytest.approx(exact, rel=0.1)


def test_a_clock_that_went_back_is_no_negative_latency() -> None:
    assert (rollup.bucket(-5), rollup.bucket(0), rollup.bucket(1)) == (0, 0, 0)
    assert rollup.percentile({}, 0.5) == 0.0


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (b"Subject: hi\r\nX-Campaign: spring 26\r\nTo: b\r\n", "spring 26"),
        (b"x-CAMPAIGN:spring\r\n", "spring"),
        (b"Subject: X-Campaign: no\r\n", ""),
        (b"Subject: hi\r\n X-Campaign: no\r\n", ""),
        (b"X-Campaign: a\x07b" + b"c" * 200 + b"\r\n", "ab" + "c" * 62),
        (b"X-Campaign: \xff\r\n", "\ufffd"),
        (b"", ""),
    ],
)
def test_a_campaign_is_the_fields_value_bounded_and_printable(block: bytes, found: str) -> None:
    assert rollup.campaign(block, "X-Campaign") == found
    assert rollup.campaign(block, "") == ""


@pytest.mark.parametrize(
    ("by", "where", "words"),
    [
        (["moon"], {}, "'moon' is no group"),
        ([], {"class": "x"}, "'class' is no dimension"),
        (["minute", "domain"], {}, "minutes are counted without dimensions"),
        (["minute"], {"domain": "d.example"}, "minutes are counted without dimensions"),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_sentence(by: list[str], where: dict[str, str], words: str) -> None:
    with pytest.raises(analytics.BadQuestion, match=words):
        analytics.question(0, 1, by, where)
    with pytest.raises(analytics.BadQuestion, match="ends before"):
        analytics.question(1, 1, [], {})


def test_rows_are_summed_by_group_the_busiest_first() -> None:
    facts = [(("a",), "delivered", -1, 2), (("b",), "delivered", -1, 5), (("a",), rollup.DELIVERY, 40, 2), (("b",), "bounced", -1, 1)]
    first, second = analytics.rows(facts)
    assert (first.values, first.counts) == (("b",), {"delivered": 5, "bounced": 1})
    assert (second.counts, second.latencies[rollup.DELIVERY].count) == ({"delivered": 2}, 2)
