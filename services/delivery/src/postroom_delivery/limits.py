"""Limits as arithmetic: token buckets, budgets that several destinations share, and the pace that adapts. Pure, so that the same rules hold in
every engine and under a virtual clock.

A bucket holds at most one second's worth of tokens for a limit per second, and a sixtieth of the quota for a longer window, at least one token:
over a minute a limit of r messages a second lets r * 61 pass at most, over an hour a limit of n lets n * 61 / 60 pass.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

# A destination that throttles is asked for half as much, at most once in this time: replies to what was under way say the same thing again.
REDUCE_MS = 30_000
# A sixteenth is slow enough for every provider, and recovers within the time in which they forget.
LEAST_FACTOR = 1 / 16
# A twentieth of the full pace comes back every minute: from a half in ten minutes.
RECOVERY_PER_MS = 0.05 / 60_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`messages` in every `seconds`."""

    messages: float
    seconds: int = 1

    @property
    def capacity(self) -> float:
        """What a full bucket holds."""
        return max(1.0, self.messages if self.seconds == 1 else self.messages / 60)

    @property
    def per_ms(self) -> float:
        return self.messages / self.seconds / 1000


@dataclass(frozen=True, slots=True)
class Bucket:
    """`tokens` at time `at` (ms); both None before the first use."""

    tokens: float | None
    at: int | None


def refill(bucket: Bucket, rate: Rate | None, now: int) -> Bucket:
    """The bucket at `now`, full at its first use. Without a rate there is nothing to count. A clock that went back adds nothing."""
    if rate is None:
        return Bucket(None, None)
    if bucket.tokens is None or bucket.at is None:
        return Bucket(rate.capacity, now)
    return Bucket(min(rate.capacity, bucket.tokens + max(0, now - bucket.at) * rate.per_ms), now)


def available(bucket: Bucket) -> int:
    """Whole messages that may go now; practically endless without a rate."""
    # The millisecond clock rounds: without the small amount a token that is due may look absent for ever.
    return 1_000_000 if bucket.tokens is None else int(bucket.tokens + 1e-6)


def spend(bucket: Bucket, messages: int) -> Bucket:
    """The bucket after `messages`."""
    return bucket if bucket.tokens is None else Bucket(bucket.tokens - messages, bucket.at)


def wait_ms(bucket: Bucket, rate: Rate | None) -> int:
    """Milliseconds until one token is there."""
    if bucket.tokens is None or rate is None:
        return 0
    return max(1, int((1 - bucket.tokens) / rate.per_ms) + 1)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that everything with one key shares; `max_connections` None is no limit of connections."""

    key: str
    rates: tuple[Rate, ...] = ()
    max_connections: int | None = None


class Ledger:
    """The shared buckets of one claim: asked, spent, and in the end `changed` has what is to be written. `load` finds one by key and window."""

    def __init__(self, now: int, load: Callable[[str, int], Bucket]) -> None:
        self._now = now
        self._load = load
        self.changed: dict[tuple[str, int], Bucket] = {}

    def __repr__(self) -> str:
        return f"Ledger({self.changed!r})"

    def _bucket(self, key: str, rate: Rate) -> Bucket:
        found = self.changed.get((key, rate.seconds)) or self._load(key, rate.seconds)
        return refill(found, rate, self._now)

    def available(self, budgets: Iterable[Budget]) -> int:
        """Whole messages that every budget lets go now."""
        return min((available(self._bucket(b.key, rate)) for b in budgets for rate in b.rates), default=1_000_000)

    def wait_ms(self, budgets: Iterable[Budget]) -> int:
        """Milliseconds until every budget has a token; 0 when all have."""
        buckets = [(self._bucket(b.key, rate), rate) for b in budgets for rate in b.rates]
        return max((wait_ms(bucket, rate) for bucket, rate in buckets if available(bucket) < 1), default=0)

    def spend(self, budgets: Iterable[Budget], messages: int) -> None:
        """Takes tokens for `messages` from every bucket of every budget."""
        for budget in budgets:
            for rate in budget.rates:
                self.changed[budget.key, rate.seconds] = spend(self._bucket(budget.key, rate), messages)


@dataclass(frozen=True, slots=True)
class Pace:
    """What part of its limits a destination is asked for: `factor` as it was at `at` (ms), when it was last reduced."""

    factor: float = 1.0
    at: int = 0

    def now(self, now: int) -> float:
        """The factor at `now`: it recovers additively, and never exceeds 1."""
        return min(1.0, self.factor + max(0, now - self.at) * RECOVERY_PER_MS)

    def reduced(self, now: int) -> "Pace":
        """After a reply that throttles."""
        if self.factor < 1.0 and now - self.at < REDUCE_MS:
            return self
        return Pace(max(LEAST_FACTOR, self.now(now) / 2), now)


def connections(most: int, factor: float) -> int:
    """The limit of connections at this pace, at least one."""
    return max(1, int(most * factor + 1e-9))


def per_second(rate: int | None, factor: float) -> Rate | None:
    """The limit of messages a second at this pace."""
    return None if rate is None else Rate(rate * factor)
