"""Token buckets under a virtual clock."""

from hypothesis import given
from hypothesis import strategies as st

from postroom_delivery.limits import Bucket, available, refill, spend, wait_ms


@given(st.integers(1, 50))
def test_over_a_minute_a_rate_lets_its_share_and_one_burst_pass(rate: int) -> None:
    """Invariant: 60 r <= passed <= 61 r, when a sender takes whatever there is and waits as it is told."""
    now, passed, bucket = 0, 0, Bucket(None, None)
    while now <= 60_000:
        bucket = refill(bucket, rate, now)
        passed += available(bucket)
        bucket = spend(bucket, available(bucket))
        now += wait_ms(bucket, rate)
    assert 59 * rate <= passed <= 61 * rate


def test_a_clock_that_goes_back_adds_no_tokens() -> None:
    assert available(refill(spend(refill(Bucket(None, None), 5, 10_000), 5), 5, 1_000)) == 0


def test_without_a_rate_nothing_is_counted() -> None:
    bucket = spend(refill(Bucket(None, None), None, 1), 1000)
    assert available(bucket) > 1000
    assert wait_ms(bucket, None) == 0
