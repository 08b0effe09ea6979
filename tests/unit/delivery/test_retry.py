"""The retry schedule."""

from hypothesis import given
from hypothesis import strategies as st

from postroom_core.documents import Retry
from postroom_delivery.retry import expires_at, next_due


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_an_interval_never_exceeds_the_maximum_and_never_falls_below_four_fifths(attempts: int, jitter: float) -> None:
    """Invariant: 0.8 min(max, initial 2^(n-1)) <= interval <= max, for any number of attempts."""
    retry = Retry(max_age=100, initial=1, maximum=60)
    full = min(60, 2 ** min(attempts - 1, 10)) * 1000
    assert full * 0.8 - 1 <= next_due(5, attempts, retry, jitter) - 5 <= full


def test_a_message_expires_its_age_after_its_reception() -> None:
    assert expires_at(1000, Retry(max_age=2, initial=1, maximum=1)) == 3000
