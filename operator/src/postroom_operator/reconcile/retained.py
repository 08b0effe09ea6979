"""What outlives a MailDomain with deletionPolicy Retain: its DKIM keys and its DNSEndpoint. Marked when it goes, taken over by its successor.

Only a MailDomain of the same namespace takes them over: a tenant's keys must not sign for whoever claims the domain next.
"""

import structlog

from postroom_operator.kube.kinds import BY_NAME, DNS_ENDPOINT, OPTIONAL
from postroom_operator.plan.names import DOMAIN, KEY_TYPE, OWNER_NAME, OWNER_NAMESPACE, OWNER_UID, RETAINED, Object, Owner
from postroom_operator.reconcile import keys
from postroom_operator.reconcile.world import World

log = structlog.get_logger(__name__)


async def retain(world: World, owner: Owner, domain: str) -> None:
    """Takes keys and records away from a MailDomain, so that they do not end with it. Safe to repeat. Raises Transient while keys cannot be seen."""
    left = keys.secrets_of(world, owner.uid)
    if await world.api.served(OPTIONAL["DNSEndpoint"]):
        # By name: its watch may not have begun yet.
        endpoint = await world.api.get(DNS_ENDPOINT, owner.name, owner.namespace)
        left += [endpoint] if endpoint is not None and endpoint["metadata"].get("labels", {}).get(OWNER_UID) == owner.uid else []
    for found in left:
        await _mark(world, found, {OWNER_UID: None, RETAINED: "true"}, {DOMAIN: domain}, alone=True)
        log.info("retained", kind=found["kind"], name=found["metadata"]["name"], domain=domain)


async def take_over(world: World, owner: Owner, domain: str) -> None:
    """Gives what a former MailDomain of the same domain and namespace left to this one."""
    for found in _nobodys(world):
        metadata = found["metadata"]
        labels = metadata.get("labels", {})
        mine = labels.get(OWNER_NAMESPACE) == owner.namespace and metadata.get("annotations", {}).get(DOMAIN) == domain
        if RETAINED in labels and mine:
            await _mark(world, found, {OWNER_UID: owner.uid, OWNER_NAME: owner.name, RETAINED: None}, {DOMAIN: None}, alone=False)
            log.info("taken over", kind=found["kind"], name=metadata["name"], domain=domain)


def _nobodys(world: World) -> list[Object]:
    """Keys and records without an owner."""
    kinds = [cache for kind, cache in world.caches.kinds() if kind in ("Secret", "DNSEndpoint")]
    return [found for cache in kinds for found in cache.owned("") if found["kind"] == "DNSEndpoint" or found.get("type") == KEY_TYPE]


async def _mark(world: World, found: Object, labels: Object, annotations: Object, *, alone: bool) -> None:
    metadata: Object = {"labels": labels, "annotations": annotations}
    if alone:
        metadata["ownerReferences"] = None
    place = found["metadata"]["namespace"]
    done = await world.api.merge(BY_NAME[found["kind"]], found["metadata"]["name"], place, {"metadata": metadata})
    if (cache := world.caches.of(found["kind"], place)) is not None:
        cache.put(done)
