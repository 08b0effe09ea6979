"""What the directory says, as delivery looks it up: pools with what a claim must respect, and our domains. Holds no state of the queue."""

from collections.abc import Callable

from postroom_core.documents import Pool, Rates, SenderDomain
from postroom_core.snapshot import Snapshot
from postroom_delivery import routing
from postroom_delivery.limits import Budget, Rate
from postroom_delivery.spool.model import Allowance, Key, Limits


class Pools:
    """Subscribe `replace` to the directory. A pool that was removed keeps its messages deliverable with the default limits and schedule."""

    def __init__(self, site: Callable[[str], str | None] = lambda _: None) -> None:
        """`site` tells the site of a domain as far as it is known, see postroom_delivery.sites."""
        self._pools: dict[str, Pool] = {}
        self._senders: dict[str, SenderDomain] = {}
        self._singly: frozenset[str] = frozenset()
        self._site = site

    def replace(self, snapshot: Snapshot) -> None:
        self._pools = snapshot.of(Pool)
        self._senders = snapshot.of(SenderDomain)
        self._singly = frozenset(name for name, sender in self._senders.items() if sender.return_path)

    def __contains__(self, name: str) -> bool:
        return name in self._pools

    def get(self, name: str) -> Pool:
        """The pool, or one with the defaults."""
        return self._pools.get(name) or Pool(name=name)

    def sender(self, domain: str) -> SenderDomain | None:
        """The MailDomain with this domain name."""
        return self._senders.get(domain)

    def destination(self, pool: str, domain: str) -> str:
        """The name of the destination that mail for `domain` belongs to now."""
        return routing.destination_of(self.get(pool), domain, self._site(domain))

    def limits(self, key: Key) -> Limits:
        """For the spool's claim; called in the writer's thread, reads only."""
        pool = self.get(key.pool)
        limit = routing.limit_of(pool, key.destination)
        own = _longer(limit)
        shared = _rates(pool.limits)
        budgets = [Budget(f"destination:{key.pool}:{key.destination}", own)] if own else []
        if shared or pool.limits.max_connections is not None:
            budgets.append(Budget(f"pool:{key.pool}", shared, pool.limits.max_connections))
        most = limit.messages_per_connection
        return Limits(limit.max_connections, limit.messages_per_second, most, tuple(budgets), _rates(pool.tenant_rates), self._singly)

    def allowances(self, pool: str, tenant: str, recipients: int) -> tuple[Allowance, ...]:
        """What a message with so many recipients counts against the limits that the pool sets each of its tenants."""
        limits, key = self.get(pool).tenant_limits, f"tenant:{pool}/{tenant}"
        wanted = (
            (key, 3600, limits.messages_per_hour, 1, "messages"),
            (key, 86_400, limits.messages_per_day, 1, "messages"),
            (f"{key}:recipients", 3600, limits.recipients_per_hour, recipients, "recipients"),
            (f"{key}:recipients", 86_400, limits.recipients_per_day, recipients, "recipients"),
        )
        return tuple(Allowance(key, window, most, amount, unit) for key, window, most, amount, unit in wanted if most is not None)


def _rates(rates: Rates) -> tuple[Rate, ...]:
    per_second = (Rate(rates.messages_per_second),) if rates.messages_per_second is not None else ()
    return (*per_second, *_longer(rates))


def _longer(rates: Rates) -> tuple[Rate, ...]:
    """Without the rate per second, which a destination counts in its own row."""
    given = ((rates.messages_per_hour, 3600), (rates.messages_per_day, 86_400))
    return tuple(Rate(messages, seconds) for messages, seconds in given if messages is not None)
