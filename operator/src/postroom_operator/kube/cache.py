"""What is watched: a list+watch with a label selector per (kind, namespace), kept as plain objects. A broken watch is listed anew; nothing is polled.

kopf's watches have no label selector and would stream every Secret; these stream ours alone. A change calls `changed` with the labels of
the object, so that its owner is reconciled.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import structlog
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError

from postroom_core.errors import Transient
from postroom_operator.kube.api import Api, Forbidden
from postroom_operator.kube.kinds import RESOURCES, Kind, kind_name
from postroom_operator.plan.names import OWNER_UID, Object

log = structlog.get_logger(__name__)
# The server ends a watch after this; a connection that went silent on the way is noticed a little later.
WATCH_SECONDS = 240
SILENT_SECONDS = WATCH_SECONDS + 30
PAUSE_SECONDS = 2.0
FORBIDDEN_PAUSE_SECONDS = 300.0  # rights are given by people


EVERYWHERE = "*"
Changed = Callable[[Object], None]


class Cache:
    """Objects of one kind in one namespace, or everywhere, that have `labels`."""

    def __init__(self, clients: tuple[Api, AsyncClient], kind: Kind, namespace: str, labels: Mapping[str, str], changed: Changed) -> None:
        self._api, self._watcher = clients
        self._kind, self._namespace, self._changed = kind, namespace, changed
        self._labels: dict[str, Any] = dict(labels)
        self._objects: dict[_Place, Object] = {}
        self._owned: dict[str, set[_Place]] = {}
        self.synced = asyncio.Event()
        self.forbidden = False
        self.seen_at = time.monotonic()

    def __repr__(self) -> str:
        return f"Cache({kind_name(self._kind)}, {self._namespace}, objects={len(self._objects)}, synced={self.synced.is_set()})"

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get((namespace, name))

    def owned(self, uid: str) -> list[Object]:
        """The objects with this owner's label."""
        return [self._objects[place] for place in sorted(self._owned.get(uid, ()))]

    def all(self) -> list[Object]:
        return list(self._objects.values())

    def put(self, found: Object) -> None:
        """Also for what we have just written, so that the next plan sees it."""
        self.drop(found)
        found["metadata"].pop("managedFields", None)
        if self._kind in RESOURCES:
            found.pop("status", None)  # read afresh by whoever tells it; a thousand of them are megabytes
        # Items of a list come without these two.
        found.setdefault("apiVersion", self._kind._api_info.resource.api_version)
        found.setdefault("kind", kind_name(self._kind))
        self._objects[_place(found)] = found
        self._owned.setdefault(_owner(found), set()).add(_place(found))

    def drop(self, found: Object) -> None:
        if (old := self._objects.pop(_place(found), None)) is not None:
            owned = self._owned[_owner(old)]
            owned.discard(_place(found))
            if not owned:
                del self._owned[_owner(old)]

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._follow(await self._list())
            except Forbidden:
                self.forbidden = True
                self.synced.set()  # nobody waits for what cannot be seen; readers ask `forbidden`
                await asyncio.sleep(FORBIDDEN_PAUSE_SECONDS)
            except (Transient, ApiError, httpx2.HTTPError, TimeoutError) as error:
                log.info("watch begins anew", cache=repr(self), reason=str(error)[:200] or type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _list(self) -> str:
        found, version = await self._api.list(self._kind, self._namespace, self._labels)
        self.forbidden = False
        self.seen_at = time.monotonic()
        for place in self._objects.keys() - {_place(item) for item in found}:
            old = self._objects[place]
            self.drop(old)
            self._changed(old)
        for item in found:
            known = self._objects.get(_place(item))
            self.put(item)
            if known is None or known["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._changed(item)
        self.synced.set()
        return version

    async def _follow(self, version: str) -> None:
        events: Any = self._watcher.watch(
            self._kind, namespace=self._namespace, labels=self._labels, resource_version=version, server_timeout=WATCH_SECONDS
        )
        while True:
            kind, found = await asyncio.wait_for(anext(events), SILENT_SECONDS)
            self.seen_at = time.monotonic()
            item = dict(found)
            if kind == "DELETED":
                self.drop(item)
            else:
                known = self._objects.get(_place(item))
                self.put(item)
                if known is not None and known["metadata"]["resourceVersion"] == item["metadata"]["resourceVersion"]:
                    continue  # the echo of our own write
            self._changed(item)


_Place = tuple[str, str]  # namespace, name


def _place(found: Object) -> _Place:
    return found["metadata"]["namespace"], found["metadata"]["name"]


def _owner(found: Object) -> str:
    return str(found["metadata"].get("labels", {}).get(OWNER_UID, ""))


class Caches:
    """All caches; a kind in a namespace is found in its own cache or in the one of all namespaces."""

    def __init__(self) -> None:
        self._caches: dict[tuple[str, str], Cache] = {}

    def __repr__(self) -> str:
        return f"Caches({', '.join(map(repr, self._caches.values()))})"

    def add(self, kind: str, namespace: str, cache: Cache) -> None:
        self._caches[(kind, namespace)] = cache

    def of(self, kind: str, namespace: str) -> Cache | None:
        """The cache that would hold an object, None when it is not watched or may not be."""
        for place in (namespace, EVERYWHERE):
            cache = self._caches.get((kind, place))
            if cache is not None and not cache.forbidden:
                return cache
        return None

    def has(self, kind: str, namespace: str) -> bool:
        """Whether there is a cache for just this place, seeing or not."""
        return (kind, namespace) in self._caches

    def kinds(self) -> list[tuple[str, Cache]]:
        return [(kind, cache) for (kind, _), cache in self._caches.items()]

    async def synced(self) -> None:
        """Returns when every cache has listed once."""
        for _, cache in self.kinds():
            await cache.synced.wait()

    def silent_seconds(self) -> float:
        """Since the least recent word of any watch."""
        return time.monotonic() - min((cache.seen_at for _, cache in self.kinds()), default=time.monotonic())
