"""Token buckets under a virtual clock."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st

from postroom_delivery.limits import REDUCE_MS, Bucket, Budget, Ledger, Pace, Rate, available, connections, refill, spend, wait_ms


@given(st.integers(1, 50))
def test_over_a_minute_a_rate_lets_its_share_and_one_burst_pass(messages: int) -> None:
    """Invariant: 60 r <= passed <= 61 r, when a sender takes whatever there is and waits as it is told."""
    now, passed, bucket, rate = 0, 0, Bucket(None, None), Rate(messages)
    while now <= 60_000:
        bucket = refill(bucket, rate, now)
        passed += available(bucket)
        bucket = spend(bucket, available(bucket))
        now += wait_ms(bucket, rate)
    assert 59 * messages <= passed <= 61 * messages


def test_a_clock_that_goes_back_adds_no_tokens() -> None:
    assert available(refill(spend(refill(Bucket(None, None), Rate(5), 10_000), 5), Rate(5), 1_000)) == 0


def test_without_a_rate_nothing_is_counted() -> None:
    bucket = spend(refill(Bucket(None, None), None, 1), 1000)
    assert available(bucket) > 1000
    assert wait_ms(bucket, None) == 0


def _found(buckets: dict[tuple[str, int], Bucket], key: str, seconds: int) -> Bucket:
    return buckets[key, seconds]


@settings(max_examples=20)
@given(st.integers(1, 2000), st.sampled_from([3600, 86_400]))
def test_over_its_window_a_longer_limit_lets_its_quota_and_a_sixtieth_pass(messages: int, seconds: int) -> None:
    """Invariant: n - 1 <= passed <= n * 61 / 60 + 1 in the first window, whoever asks and how often."""
    rate = Rate(messages, seconds)
    now, passed, budgets = 0, 0, (Budget("x", (rate,)),)
    buckets = {("x", seconds): Bucket(None, None)}
    while now <= seconds * 1000:
        ledger = Ledger(now, functools.partial(_found, dict(buckets)))
        passed += ledger.available(budgets)
        ledger.spend(budgets, ledger.available(budgets))
        buckets |= ledger.changed
        now += ledger.wait_ms(budgets)
    assert messages - 1 <= passed <= messages * 61 / 60 + 1


def test_the_tightest_of_several_budgets_decides_and_all_are_spent() -> None:
    pool, tenant = Budget("pool", (Rate(10), Rate(600, 3600))), Budget("tenant", (Rate(3),))
    ledger = Ledger(0, lambda key, window: Bucket(None, None))
    assert ledger.available((pool, tenant)) == 3
    ledger.spend((pool, tenant), 3)
    assert ledger.available((pool, tenant)) == 0
    assert ledger.wait_ms((pool,)) == 0
    assert ledger.available((pool,)) == 7


def test_a_pace_halves_once_in_a_while_and_recovers_additively_to_the_limit_and_not_beyond() -> None:
    pace = Pace().reduced(1_000_000)
    assert pace.now(1_000_000) == 0.5
    assert pace.reduced(1_000_000 + REDUCE_MS - 1) == pace
    assert round(pace.reduced(1_000_000 + REDUCE_MS).now(1_000_000 + REDUCE_MS), 3) == 0.263
    steps = [pace.now(1_000_000 + minutes * 60_000) for minutes in (1, 2, 10, 1000)]
    assert [round(step, 2) for step in steps] == [0.55, 0.6, 1.0, 1.0]


def test_a_reduced_pace_leaves_one_connection_at_least() -> None:
    pace = Pace()
    for number in range(20):
        pace = pace.reduced(number * REDUCE_MS)
    assert connections(3, pace.factor) == 1
    assert connections(10, 0.5) == 5
    assert connections(10, 1.0) == 10
