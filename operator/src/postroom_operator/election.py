"""Who leads: a Lease of coordination.k8s.io. Of several operators one acts; the others wait, warm.

A leader renews every `retry`; when it could not within `deadline` it stops at once by ending the process, because another may have taken over by
then. Another takes a Lease whose record has not changed for its whole duration, measured on its own clock, so clocks of machines need not agree.
Every write is guarded by the resourceVersion: two that try at once cannot both win. On SIGTERM the Lease is given back.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import Gauge

from postroom_core.errors import PostroomError
from postroom_operator.kube.api import Api, Conflict
from postroom_operator.kube.kinds import LEASE
from postroom_operator.plan.names import Object

log = structlog.get_logger(__name__)
LEADER = Gauge("postroom_operator_leader", "1 while this process leads")
RETRY_SECONDS = 2.0


class Election:
    """One candidate. `duration` in whole seconds, as the Lease wants it."""

    def __init__(self, api: Api, lease: tuple[str, str], identity: str, duration: int, lost: Callable[[], None]) -> None:
        self._api = api
        self._namespace, self._name = lease
        self._identity = identity
        self._duration = duration
        self._deadline = duration * 2 / 3
        self._lost = lost
        self._record: tuple[Any, float] = (None, time.monotonic())
        self.tried_at = time.monotonic()

    async def acquire(self) -> None:
        """Returns when this process leads."""
        told = ""
        while True:
            self.tried_at = time.monotonic()
            try:
                if await self._try():
                    LEADER.set(1)
                    log.info("leads", lease=self._name, identity=self._identity)
                    return
            except PostroomError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("the Lease cannot be had", reason=told)
            await asyncio.sleep(RETRY_SECONDS * self._duration / 15)

    async def hold(self) -> None:
        """Renews for ever; calls `lost` when the Lease is another's or could not be renewed in time."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(RETRY_SECONDS * self._duration / 15)
            self.tried_at = time.monotonic()
            left = self._deadline - (time.monotonic() - renewed)
            try:
                if not await asyncio.wait_for(self._try(), max(left, 0.1)):
                    break
                renewed = time.monotonic()
            except (PostroomError, TimeoutError) as error:
                log.warning("the Lease was not renewed", reason=str(error) or type(error).__name__)
                if time.monotonic() - renewed >= self._deadline:
                    break
        LEADER.set(0)
        log.error("the Lease is lost", identity=self._identity)
        self._lost()

    async def release(self) -> None:
        """Gives it back, so that the next leader need not wait."""
        found = await self._api.get(LEASE, self._name, self._namespace)
        if found is not None and found["spec"].get("holderIdentity") == self._identity:
            found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
            await self._api.replace(LEASE, found)
        LEADER.set(0)
        log.info("gave the Lease back", identity=self._identity)

    async def _try(self) -> bool:
        found = await self._api.get(LEASE, self._name, self._namespace)
        try:
            if found is None:
                await self._api.create(LEASE, self._body({}, 0))
                return True
            if not self._is_free(found["spec"]):
                return False
            await self._api.replace(LEASE, {**found, "spec": self._body(found["spec"], _number(found["spec"]))["spec"]})
        except Conflict:
            return False
        return True

    def _is_free(self, spec: Object) -> bool:
        holder = spec.get("holderIdentity")
        if holder in (self._identity, "", None):
            return True
        record = (holder, spec.get("renewTime"), _number(spec))
        if record != self._record[0]:
            self._record = (record, time.monotonic())
        return time.monotonic() - self._record[1] > float(spec.get("leaseDurationSeconds") or self._duration)

    def _body(self, spec: Object, transitions: int) -> Object:
        mine = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._duration,
                "acquireTime": spec["acquireTime"] if mine and "acquireTime" in spec else _now(),
                "renewTime": _now(),
                "leaseTransitions": transitions if mine else transitions + 1,
            },
        }


def _number(spec: Object) -> int:
    return int(spec.get("leaseTransitions") or 0)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
