"""When a deferred recipient is tried again: exponential back-off with jitter, until the message expires. Pure."""

from postroom_core.documents import Retry

# Doubling beyond this is beyond every maximum.
_MOST_DOUBLINGS = 40


def next_due(now: int, attempts: int, retry: Retry, jitter: float, *, slowly: bool = False) -> int:
    """Unix milliseconds of the next attempt after `attempts` (at least 1) have failed; `jitter` from 0 to 1 spreads it over the last fifth.

    The interval never exceeds `maximum`, so that a schedule written in the pool is a promise; `slowly` waits for it at once.
    """
    interval = retry.maximum if slowly else min(retry.maximum, retry.initial * 2 ** min(attempts - 1, _MOST_DOUBLINGS))
    return now + int(interval * 1000 * (0.8 + 0.2 * jitter))


def expires_at(received_at: int, retry: Retry) -> int:
    """Unix milliseconds after which a deferral becomes an expiry."""
    return received_at + int(retry.max_age * 1000)
