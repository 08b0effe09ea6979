"""Brings the children of one owner to what the plan wants: apply what differs, remove what is no longer wanted.

An object is applied only when the plan's digest, kept on the object, is another, or when a field that we own was changed by somebody. So a restart
of the operator writes nothing, a hand's edit is repaired, and fields of others stay.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from postroom_core.errors import Transient
from postroom_operator.kube.api import Api
from postroom_operator.kube.cache import Caches
from postroom_operator.kube.kinds import BY_NAME, CHILDREN, Kind, kind_name
from postroom_operator.plan.names import APPLIED, Object, digest


class Children:
    """All children of all owners."""

    def __init__(self, api: Api, caches: Caches) -> None:
        self._api = api
        self._caches = caches

    async def ensure(self, uid: str, desired: Sequence[Object], manager: str, keep: Iterable[str] = ()) -> int:
        """Applies in the order of CHILDREN, then prunes what carries the owner's label and is not wanted; `keep` are types of Secrets left alone.

        How many writes it took. Raises what the API raises; what was done stays done.
        """
        order = {kind_name(kind): number for number, kind in enumerate(CHILDREN)}
        writes = 0
        for body in sorted(desired, key=lambda item: order[item["kind"]]):
            writes += await self._apply(body, manager)
        wanted = {(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]) for body in desired}
        return writes + await self._prune(uid, wanted, frozenset(keep))

    async def _apply(self, body: Object, manager: str) -> int:
        kind = BY_NAME[body["kind"]]
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        cache = self._caches.of(body["kind"], namespace)
        known = cache.get(namespace, name) if cache is not None else await self._api.get(kind, name, namespace)
        if known is not None and holds(known, body):
            return 0
        if known is not None and unchangeable(known, body):
            await self._make_way(kind, known)
        marked = copy.deepcopy(body)
        marked["metadata"].setdefault("annotations", {})[APPLIED] = digest(body)
        done = await self._api.apply(kind, marked, manager)
        if cache is not None:
            cache.put(done)
        return 1

    async def _make_way(self, kind: Kind, known: Object) -> None:
        """Deletes an object around its pods, which go on and are taken over by the next. Raises Transient: it takes a moment, and wakes us."""
        metadata = known["metadata"]
        if "deletionTimestamp" not in metadata:
            await self._api.delete(kind, metadata["name"], metadata["namespace"], orphan=True)
        raise Transient(f"{known['kind']} {metadata['name']} is made anew around its pods, because what changed cannot be changed in place")

    async def _prune(self, uid: str, wanted: set[tuple[str, str, str]], keep: frozenset[str]) -> int:
        writes = 0
        for name, cache in self._caches.kinds():
            for found in cache.owned(uid):
                metadata = found["metadata"]
                identity = (name, metadata["namespace"], metadata["name"])
                if name not in BY_NAME or identity in wanted or found.get("type") in keep or "deletionTimestamp" in metadata:
                    continue
                if made_by_another(found, uid):
                    continue
                await self.remove(BY_NAME[name], found)
                writes += 1
        return writes

    async def remove(self, kind: Kind, found: Object) -> None:
        """Deletes one."""
        metadata = found["metadata"]
        await self._api.delete(kind, metadata["name"], metadata["namespace"])
        if (cache := self._caches.of(kind_name(kind), metadata["namespace"])) is not None:
            cache.drop(found)

    async def remove_all(self, uid: str) -> None:
        """For an owner that goes."""
        await self._prune(uid, set(), frozenset())


def made_by_another(found: Object, uid: str) -> bool:
    """Whether another controller made it and only copied our labels, as KEDA does to the HPA of a ScaledObject."""
    return any(reference.get("controller") and reference["uid"] != uid for reference in found["metadata"].get("ownerReferences") or [])


def holds(known: Object, body: Object) -> bool:
    """Whether an object already is what the plan wants."""
    return known["metadata"].get("annotations", {}).get(APPLIED) == digest(body) and covers(known, body)


# The API server refuses a change of these.
_FIXED = {"StatefulSet": ("podManagementPolicy", "serviceName", "selector", "volumeClaimTemplates")}


def unchangeable(known: Object, body: Object) -> bool:
    """Whether an object differs from what the plan wants in something that cannot be changed."""
    return any(not covers(known["spec"].get(field), body["spec"][field]) for field in _FIXED.get(body["kind"], ()) if field in body["spec"])


def covers(found: Any, wanted: Any) -> bool:
    """Whether every field of `wanted` is in `found`; what others added does not count. Lists are compared item by item."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and covers(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(covers(a, b) for a, b in zip(found, wanted, strict=True))
    return bool(found == wanted)
