"""Requests to the Kubernetes API with the project's errors: Forbidden says which right is missing, everything that may pass is Transient.

Every object is plain JSON. Writes are counted; `die_after_writes` ends the process right after that many of them (the Lease's do not count), which is
how tests kill the operator at every step.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import structlog
from lightkube import AsyncClient
from lightkube.config import client_adapter
from lightkube.core.exceptions import ApiError
from lightkube.types import CascadeType, PatchType
from prometheus_client import Counter

from postroom_core.errors import Permanent, Transient
from postroom_operator.kube.kinds import ENDPOINT_SLICE, LEASE, Kind, kind_name
from postroom_operator.plan.names import Object

log = structlog.get_logger(__name__)
WRITES = Counter("postroom_operator_writes", "Requests that write, by verb and kind", ["verb", "kind"])
# A missing integration is looked for again this often.
DISCOVERY_SECONDS = 300.0
REQUEST_SECONDS = 20.0


class Forbidden(Permanent):
    """The ServiceAccount lacks a right; the text names it."""


class Conflict(Transient):
    """The object changed under us, or exists already."""


class Api:
    """One connection pool to one API server."""

    def __init__(self, client: AsyncClient, die_after_writes: int = 0) -> None:
        self._client = client
        self._create: Any = client.create  # their overloads know typed models only
        self._replace: Any = client.replace
        self._discovery = client_adapter.AsyncClient(client.config, client_adapter.ConnectionParams(trust_env=False))
        self._die_after = die_after_writes
        self._writes = 0
        self._served: dict[str, tuple[float, bool]] = {}

    async def get(self, kind: Any, name: str, namespace: str | None = None) -> Object | None:
        """None when there is none."""
        try:
            found = await (self._client.get(kind, name) if namespace is None else self._client.get(kind, name, namespace=namespace))
        except (ApiError, httpx2.HTTPError) as error:
            if _code(error) == 404:
                return None
            raise _mapped(error, "get", kind, name, namespace) from error
        return dict(found)

    async def list(self, kind: Any, namespace: str, labels: Mapping[str, str]) -> tuple[list[Object], str]:
        """The objects and the resourceVersion to watch from."""
        try:
            found = self._client.list(kind, namespace=namespace, labels=dict(labels), chunk_size=500)
            objects = [dict(item) async for item in found]
        except (ApiError, httpx2.HTTPError) as error:
            raise _mapped(error, "list", kind, "", namespace) from error
        return objects, found.resourceVersion

    async def ready_addresses(self, namespace: str, service: str) -> Sequence[str]:
        """The addresses of a Service's ready pods."""
        slices, _ = await self.list(ENDPOINT_SLICE, namespace, {"kubernetes.io/service-name": service})
        endpoints = [endpoint for found in slices for endpoint in found.get("endpoints") or []]
        return sorted({address for endpoint in endpoints if endpoint.get("conditions", {}).get("ready", True) for address in endpoint["addresses"]})

    async def apply(self, kind: Kind, body: Object, manager: str) -> Object:
        """Server-side apply, forced: what the plan names is ours."""
        metadata = body["metadata"]
        return await self._patch(kind, metadata["name"], metadata["namespace"], body, PatchType.APPLY, manager)

    async def apply_status(self, kind: Any, body: Object, manager: str) -> Object:
        """Server-side apply on the status subresource."""
        metadata = body["metadata"]
        return await self._patch(kind.Status, metadata["name"], metadata["namespace"], body, PatchType.APPLY, manager)

    async def merge(self, kind: Kind, name: str, namespace: str, patch: Object) -> Object:
        """A JSON merge patch; with metadata.resourceVersion in it, Conflict when the object has changed."""
        return await self._patch(kind, name, namespace, patch, PatchType.MERGE, None)

    async def _patch(self, kind: Any, name: str, namespace: str, body: Object, how: PatchType, manager: str | None) -> Object:
        try:
            done = await self._client.patch(
                kind, name, body, namespace=namespace, patch_type=how, field_manager=manager, force=how is PatchType.APPLY
            )
        except (ApiError, httpx2.HTTPError) as error:
            raise _mapped(error, "patch", kind, name, namespace) from error
        self._wrote("patch", kind)
        return dict(done)

    async def create(self, kind: Any, body: Object) -> Object:
        """Raises Conflict when it exists."""
        try:
            done = await self._create(kind(body), namespace=body["metadata"]["namespace"])
        except (ApiError, httpx2.HTTPError) as error:
            raise _mapped(error, "create", kind, body["metadata"].get("name", ""), body["metadata"]["namespace"]) from error
        self._wrote("create", kind)
        return dict(done)

    async def replace(self, kind: Any, body: Object) -> Object:
        """Guarded by the body's resourceVersion. Raises Conflict."""
        try:
            done = await self._replace(kind(body), namespace=body["metadata"]["namespace"])
        except (ApiError, httpx2.HTTPError) as error:
            raise _mapped(error, "update", kind, body["metadata"]["name"], body["metadata"]["namespace"]) from error
        self._wrote("update", kind)
        return dict(done)

    async def delete(self, kind: Kind, name: str, namespace: str, *, orphan: bool = False) -> None:
        """Nothing happens when it is gone already. `orphan` leaves what it owns, such as pods."""
        try:
            await self._client.delete(kind, name, namespace=namespace, cascade=CascadeType.ORPHAN if orphan else None)
        except (ApiError, httpx2.HTTPError) as error:
            if _code(error) == 404:
                return
            raise _mapped(error, "delete", kind, name, namespace) from error
        self._wrote("delete", kind)

    async def served(self, group_version: str) -> bool:
        """Whether the API serves a group of somebody else; asked again after a while."""
        known = self._served.get(group_version)
        if known is not None and time.monotonic() - known[0] < DISCOVERY_SECONDS:
            return known[1]
        try:
            answer = await self._discovery.get(f"/apis/{group_version}")
        except httpx2.HTTPError as error:
            raise Transient(f"discovery of {group_version}: {_told(error)}") from error
        if answer.status_code not in (200, 404):
            raise Transient(f"discovery of {group_version}: {answer.status_code}")
        self._served[group_version] = (time.monotonic(), answer.status_code == 200)
        return answer.status_code == 200

    def _wrote(self, verb: str, kind: Any) -> None:
        WRITES.labels(verb, kind_name(kind)).inc()
        if kind is LEASE:
            return  # renewed all the time, whatever is done
        self._writes += 1
        if self._writes == self._die_after:
            os._exit(137)


def bracketed(address: str) -> str:
    """As a host of an URL or a gRPC target."""
    return f"[{address}]" if ":" in address else address


def _code(error: httpx2.HTTPError) -> int:
    if isinstance(error, ApiError) and error.status.code is not None:
        return int(error.status.code)
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else 0


def _mapped(error: httpx2.HTTPError, verb: str, kind: Any, name: str, namespace: str | None) -> Exception:
    where = f"{verb} {kind_name(kind)} {name}{f' in {namespace}' if namespace else ''}"
    match _code(error):
        case 403 if "exceeded quota" not in str(error):
            return Forbidden(f"the operator's ServiceAccount may not {where}")
        case 409:
            return Conflict(f"{where}: changed or there already")
        case 422 | 400 as code:
            return Permanent(f"{where}: refused with {code}: {_told(error)}")
        case _:
            return Transient(f"{where}: {_told(error)}")


def _told(error: httpx2.HTTPError) -> str:
    """The API's sentence; the object itself is never in it but for values of refused fields, which are no secrets in what we write."""
    return (str(error) or type(error).__name__)[:300]
