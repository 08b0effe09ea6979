"""Rate limits as token buckets: pure, so that the same arithmetic holds in every engine and under a virtual clock.

A bucket holds at most one second's worth of tokens, at least one: over a minute a limit of r messages a second lets r * 61 pass at most.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bucket:
    """`tokens` at time `at` (ms); both None before the first use."""

    tokens: float | None
    at: int | None


def refill(bucket: Bucket, rate: int | None, now: int) -> Bucket:
    """The bucket at `now`, full at its first use. Without a rate there is nothing to count. A clock that went back adds nothing."""
    if rate is None:
        return Bucket(None, None)
    capacity = float(max(1, rate))
    if bucket.tokens is None or bucket.at is None:
        return Bucket(capacity, now)
    return Bucket(min(capacity, bucket.tokens + max(0, now - bucket.at) * rate / 1000), now)


def available(bucket: Bucket) -> int:
    """Whole messages that may go now; practically endless without a rate."""
    # The millisecond clock rounds: without the small amount a token that is due may look absent for ever.
    return 1_000_000 if bucket.tokens is None else int(bucket.tokens + 1e-6)


def spend(bucket: Bucket, messages: int) -> Bucket:
    """The bucket after `messages`."""
    return bucket if bucket.tokens is None else Bucket(bucket.tokens - messages, bucket.at)


def wait_ms(bucket: Bucket, rate: int | None) -> int:
    """Milliseconds until one token is there."""
    if bucket.tokens is None or rate is None:
        return 0
    return max(1, int((1 - bucket.tokens) * 1000 / rate) + 1)
