"""How much mail could leave now if there were more workers: what an autoscaler is asked to scale by. Pure; engines gather, this file counts.

It is a claim that takes nothing: the same limits are asked in the same order, with room for every connection that they allow. Mail that waits
for its next attempt, for a token, for a connection or behind a block does not count, because more pods would not send it sooner.

The age of a lane is the time since its work was due *and* the lane had its last turn *and* its destination could be visited. The due time
alone would let one message that a limit holds back for an hour look like an hour's delay at the moment when its token comes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from postroom_delivery import limits
from postroom_delivery.spool.model import Backlog, Key, Limits

# Destinations that are looked at, those that wait longest first, so that an answer takes a fraction of a second. When more wait, the age of the
# first one grows, and that asks for pods too.
MOST_DESTINATIONS = 1000
# Counted of one lane at most: one destination alone asks for no more pods than this.
MOST_OF_A_LANE = 10_000

LimitsOf = Callable[[Key], Limits]


@dataclass(frozen=True, slots=True)
class Line:
    """A destination that may be visited now. `lanes` are its tenants with due work, each with the time (ms) since when it waits."""

    key: Key
    bucket: limits.Bucket
    factor: float
    connections: int  # in use, by all processes
    lanes: tuple[tuple[str, int], ...]


def buckets(lines: Iterable[Line], limits_of: LimitsOf) -> set[tuple[str, int]]:
    """The shared buckets, by key and window, that `count` will ask for."""
    found = set()
    for line in lines:
        limit = limits_of(line.key)
        tenants = (budget for tenant, _ in line.lanes for budget in limit.of_tenant(line.key.pool, tenant))
        found |= {(budget.key, rate.seconds) for budget in (*limit.budgets, *tenants) for rate in budget.rates}
    return found


def room(line: Line, limit: Limits, now: int) -> int:
    """Messages that the destination's own limits let go now."""
    free = limits.connections(limit.max_connections, line.factor) - line.connections
    tokens = limits.available(limits.refill(line.bucket, limits.per_second(limit.rate, line.factor), now))
    return max(0, min(free * limit.batch, tokens, MOST_OF_A_LANE))


def count(
    lines: Sequence[Line], due: Mapping[tuple[Key, str], int], limits_of: LimitsOf, connections: Mapping[str, int], ledger: limits.Ledger, now: int
) -> Backlog:
    """`due` are the due recipients of each lane, counted up to the destination's room; `connections` those in use by pool."""
    total, oldest = 0, now
    used = dict(connections)
    for line in lines:
        limit = limits_of(line.key)
        left = room(line, limit, now)
        most = min((budget.max_connections for budget in limit.budgets if budget.max_connections is not None), default=None)
        if most is not None:
            left = min(left, max(0, most - used.get(line.key.pool, 0)) * limit.batch)
        before = left
        for tenant, since in line.lanes:
            budgets = (*limit.budgets, *limit.of_tenant(line.key.pool, tenant))
            taken = min(due.get((line.key, tenant), 0), left, ledger.available(budgets))
            if taken:
                ledger.spend(budgets, taken)
                left -= taken
                oldest = min(oldest, since)
        total += before - left
        used[line.key.pool] = used.get(line.key.pool, 0) + -(-(before - left) // limit.batch)
    return Backlog(total, now - oldest)
