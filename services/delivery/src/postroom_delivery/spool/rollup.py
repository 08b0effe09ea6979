"""Roll-ups: what happened, counted by hour and by who, where to and how, so that a question never scans events. Pure.

An event becomes facts: one count of its kind, and, for a first attempt and for a delivery, one count in a latency bucket. Facts of the same key add
up, so roll-ups of several processes and hours merge by addition. Two grains: an hour with every dimension, a minute with none but the class,
for what is live.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
# Quarters of a power of two: a percentile is off by 9 % at most, and a week of milliseconds is 118 buckets.
_PER_OCTAVE = 4
# What one read of events may hold in memory, and one transaction may add.
PAGE = 2000
# A question's facts before they are summed in Python: ten thousand groups with twenty measures each.
MOST_FACTS = 200_000
# Grain → how long it is kept: minutes are for plots of what is live, hours for comparing with last month and last quarter.
KEEP = {MINUTE_MS: 2 * 24 * HOUR_MS, HOUR_MS: 92 * 24 * HOUR_MS}
DIMENSIONS = ("tenant", "domain", "credential", "campaign", "destination", "pool")
_COLUMNS = {name: name for name in DIMENSIONS} | {"class": "class", "hour": "start", "minute": "start"}
# Facts that are latencies; the others are the kinds of events.
FIRST_ATTEMPT, DELIVERY = "first-attempt", "delivery"
# What people do to a message is no result of sending.
_NOT_COUNTED = frozenset({"held", "released", "retried"})
_ATTEMPTED = frozenset({"delivered", "deferred", "bounced", "expired", "ambiguous"})
# A campaign's name comes from applications: this bounds what one may cost.
MOST_CAMPAIGN = 64


class Fact(NamedTuple):
    """The key of a count. `bucket` is -1 for counts, else the latency's bucket; `start` and `grain` are milliseconds."""

    grain: int
    start: int
    tenant: str
    domain: str
    credential: str
    campaign: str
    destination: str
    pool: str
    measure: str
    classification: str
    bucket: int


@dataclass(frozen=True, slots=True)
class Happening:
    """An event with what its message knows. `due_from` is when the first attempt could be made: the accept, or the end of a hold."""

    number: int
    at: int
    kind: str
    classification: str
    recipient: str
    attempt: int
    tenant: str
    domain: str
    credential: str
    campaign: str
    pool: str
    due_from: int


def fold(happenings: Iterable[Happening]) -> Counter[Fact]:
    """The facts of some events."""
    facts: Counter[Fact] = Counter()
    for one in happenings:
        if one.kind in _NOT_COUNTED:
            continue
        destination = one.recipient.rpartition("@")[2]
        whole = (one.tenant, one.domain, one.credential, one.campaign, destination, one.pool)
        classification = "" if one.kind in ("delivered", "accepted") else one.classification
        measures = [(one.kind, classification, -1)]
        waited = bucket(one.at - one.due_from)
        if one.attempt == 1 and one.kind in _ATTEMPTED:
            measures.append((FIRST_ATTEMPT, "", waited))
        if one.kind == "delivered":
            measures.append((DELIVERY, "", waited))
        for measure in measures:
            facts[Fact(HOUR_MS, one.at - one.at % HOUR_MS, *whole, *measure)] += 1
            facts[Fact(MINUTE_MS, one.at - one.at % MINUTE_MS, "", "", "", "", "", "", *measure)] += 1
    return facts


def columns(groups: Iterable[str]) -> list[str]:
    """The columns of groups, for SQL. Raises KeyError for what is none, so that no text of a stranger becomes SQL."""
    return [_COLUMNS[name] for name in groups]


def bucket(milliseconds: int) -> int:
    """The bucket of a latency; less than a millisecond, and a clock that went back, is bucket 0."""
    return int(_PER_OCTAVE * math.log2(milliseconds)) if milliseconds > 1 else 0


def percentile(buckets: Mapping[int, int], share: float) -> float:
    """Milliseconds within which `share` of the latencies were; the middle of the bucket. 0.0 when there are none."""
    total, seen = sum(buckets.values()), 0
    for number in sorted(buckets):
        seen += buckets[number]
        if seen >= share * total:
            return float(2 ** ((number + 0.5) / _PER_OCTAVE))
    return 0.0


def campaign(header_block: bytes, name: str) -> str:
    """The value of the header field `name` in a block of CRLF lines, without control characters; "" when it is absent or the name is empty."""
    if not name:
        return ""
    wanted = b"\r\n" + name.lower().encode() + b":"
    at = (b"\r\n" + header_block).lower().find(wanted)
    if at < 0:
        return ""
    value = header_block[at + len(wanted) - 2 :].partition(b"\r\n")[0].strip().decode("utf-8", "replace")
    return "".join(character for character in value if character.isprintable())[:MOST_CAMPAIGN]
