"""What the directory says, as delivery looks it up: pools with what a claim must respect, and our domains. Holds no state of the queue."""

from postroom_core.documents import Pool, SenderDomain
from postroom_core.snapshot import Snapshot
from postroom_delivery import routing
from postroom_delivery.spool.model import Allowance, Key, Limits


class Pools:
    """Subscribe `replace` to the directory. A pool that was removed keeps its messages deliverable with the default limits and schedule."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self._senders: dict[str, SenderDomain] = {}

    def replace(self, snapshot: Snapshot) -> None:
        self._pools = snapshot.of(Pool)
        self._senders = snapshot.of(SenderDomain)

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
        return routing.destination_of(self.get(pool), domain)

    def limits(self, key: Key) -> Limits:
        """For the spool's claim; called in the writer's thread, reads only."""
        limit = routing.limit_of(self.get(key.pool), key.destination)
        return Limits(limit.max_connections, limit.messages_per_second, limit.messages_per_connection)

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
