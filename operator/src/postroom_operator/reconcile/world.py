"""What every reconcile needs: the API, what is watched, the clock, and who can tell about DNS, signers and ingress."""

import collections
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from postroom_operator.ingresses import Ingresses
from postroom_operator.kube import events
from postroom_operator.kube.api import Api
from postroom_operator.kube.cache import Caches
from postroom_operator.kube.children import Children
from postroom_operator.lookout import Lookout
from postroom_operator.plan import conditions
from postroom_operator.plan.conditions import Condition
from postroom_operator.plan.credentials import Held
from postroom_operator.plan.dns import Host
from postroom_operator.plan.maildomain import Places
from postroom_operator.plan.names import GROUP, VERSION, Object, Owner
from postroom_operator.reconcile.engine import Engine
from postroom_operator.resources import Resource, Where
from postroom_operator.settings import Settings
from postroom_operator.signers import Signers

log = structlog.get_logger(__name__)
STATUS_MANAGER = "postroom-operator-status"


class Budget:
    """At most so many in an hour."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: collections.deque[datetime] = collections.deque()

    def left(self, now: datetime) -> bool:
        while self._taken and now - self._taken[0] > timedelta(hours=1):
            self._taken.popleft()
        return len(self._taken) < self._most

    def take(self, now: datetime) -> None:
        self._taken.append(now)


@dataclass
class World:
    """One operator that leads."""

    settings: Settings
    api: Api
    caches: Caches
    children: Children
    engine: Engine
    lookout: Lookout
    signers: Signers
    ingresses: Ingresses
    now: Callable[[], datetime]
    rotations: Budget
    held: dict[str, dict[str, Held]] = field(default_factory=dict, repr=False)  # by uid, for when somebody deletes the directory document
    usernames: dict[str, str] = field(default_factory=dict)  # SMTP user name → uid of the MailDomain that has it

    @property
    def places(self) -> Places:
        return Places(self.settings.platform_namespace, self.settings.key_namespace)

    @property
    def host(self) -> Host:
        """How the world knows this installation."""
        return Host(self.settings.ingress_hostname, self.settings.egress_addresses)

    def resources(self, kind: str) -> list[Object]:
        """All MailDomains or SendingPools that are watched."""
        return [found for name, cache in self.caches.kinds() if name == kind for found in cache.all()]

    async def tell(self, kind: object, found: Object, wanted: list[Condition], status: Object) -> None:
        """Writes the status when it differs, and one Event for each transition."""
        previous = found.get("status") or {}
        current = conditions.merged(previous.get("conditions", []), wanted, found["metadata"]["generation"], self.now())
        body = {**status, "observedGeneration": found["metadata"]["generation"], "conditions": current}
        if body == previous:
            return
        identity = {"name": found["metadata"]["name"], "namespace": found["metadata"]["namespace"]}
        owner = owner_of(found)
        told = {"apiVersion": f"{GROUP}/{VERSION}", "kind": owner.kind, "metadata": identity, "status": body}
        done = await self.api.apply_status(kind, told, STATUS_MANAGER)
        if (cache := self.caches.of(owner.kind, owner.namespace)) is not None:
            cache.put(done)  # so that the echo of this write is no news: a pool's would wake every domain of it
        for condition in conditions.transitions(previous.get("conditions", []), current):
            if previous or condition["status"] == "False":  # the first look at everything is no news
                await events.tell(self.api, owner, self.settings.instance or "operator", condition)


def owner_of(found: Object) -> Owner:
    """The identity of a resource."""
    metadata = found["metadata"]
    return Owner(found["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


def resource_of(found: Object) -> Resource:
    """As the plan wants it; the API server has filled in the defaults."""
    return Resource(found["kind"], found["metadata"]["name"], found["metadata"]["namespace"], found["spec"], Where("", {}))
