"""Questions about what was sent: which groups, which time; and the answer from facts (see `rollup`). Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from postroom_delivery.spool.rollup import DELIVERY, DIMENSIONS, FIRST_ATTEMPT, HOUR_MS, MINUTE_MS, percentile

GROUPS = (*DIMENSIONS, "class", "hour", "minute")
MOST_ROWS = 10_000


class BadQuestion(ValueError):
    """Cannot be answered; the text is one sentence for the asker."""


@dataclass(frozen=True, slots=True)
class Question:
    """`since` and `until` in milliseconds; `by` names of GROUPS; `where` dimension → value."""

    since: int
    until: int
    by: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def grain(self) -> int:
        return MINUTE_MS if "minute" in self.by else HOUR_MS


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Row:
    """One group: its values in the order of `by` (times in milliseconds, as text), counts by kind of event, latencies by name."""

    values: tuple[str, ...]
    counts: Mapping[str, int]
    latencies: Mapping[str, Latency]


def question(since: int, until: int, by: Sequence[str], where: Mapping[str, str]) -> Question:
    """Raises BadQuestion."""
    if unknown := [name for name in by if name not in GROUPS]:
        raise BadQuestion(f"{unknown[0]!r} is no group; there are {', '.join(GROUPS)}")
    if unknown := [name for name in where if name not in DIMENSIONS]:
        raise BadQuestion(f"{unknown[0]!r} is no dimension; there are {', '.join(DIMENSIONS)}")
    if "minute" in by and (where or set(by) & {*DIMENSIONS, "hour"}):
        raise BadQuestion("minutes are counted without dimensions; ask by hour")
    if since >= until:
        raise BadQuestion("the time ends before it begins")
    return Question(since, until, tuple(dict.fromkeys(by)), dict(where))


def rows(facts: Iterable[tuple[tuple[str, ...], str, int, int]]) -> list[Row]:
    """Of (group's values, measure, bucket, count): one row per group, the busiest first."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    buckets: dict[tuple[str, ...], dict[str, Counter[int]]] = {}
    for values, measure, number, count in facts:
        if measure in (FIRST_ATTEMPT, DELIVERY):
            buckets.setdefault(values, {}).setdefault(measure, Counter())[number] += count
            counts.setdefault(values, Counter())
        else:
            counts.setdefault(values, Counter())[measure] += count
    made = [Row(values, dict(found), {name: _latency(b) for name, b in buckets.get(values, {}).items()}) for values, found in counts.items()]
    return sorted(made, key=lambda row: (-sum(row.counts.values()), row.values))


def _latency(buckets: Mapping[int, int]) -> Latency:
    return Latency(sum(buckets.values()), *(percentile(buckets, share) for share in (0.5, 0.95, 0.99)))
