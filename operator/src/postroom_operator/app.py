"""The operator as a process: waits for the Lease, then watches, reconciles and serves health until it is stopped or the Lease is lost."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import httpx2
import kopf
import structlog
from lightkube import AsyncClient, KubeConfig
from lightkube.config import client_adapter
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError

from postroom_core import http
from postroom_core.errors import PostroomError
from postroom_core.lifecycle import Stopping, supervised
from postroom_operator import handlers, platform
from postroom_operator.authority import Authority
from postroom_operator.election import Election
from postroom_operator.ingresses import ServiceIngresses
from postroom_operator.kube.api import REQUEST_SECONDS, Api
from postroom_operator.kube.cache import EVERYWHERE, Cache, Caches, Changed
from postroom_operator.kube.children import Children
from postroom_operator.kube.kinds import CHILDREN, MAIL_DOMAIN, OPTIONAL, SECRET, SENDING_POOL, Kind, kind_name
from postroom_operator.lookout import Lookout
from postroom_operator.plan.names import CREDENTIAL, MANAGED, OWNER_UID, Object
from postroom_operator.reconcile.engine import RUN_SECONDS, Engine
from postroom_operator.reconcile.maildomain import MailDomains
from postroom_operator.reconcile.sendingpool import SendingPools
from postroom_operator.reconcile.world import Budget, World
from postroom_operator.settings import Settings
from postroom_operator.signers import ServiceSigners

log = structlog.get_logger(__name__)
# Watches end and begin anew every four minutes; one that says nothing for longer than this is dead.
SILENT_SECONDS = 330.0
# Kinds of somebody else that appear later are found by the next look.
DISCOVER_SECONDS = 60.0
LOST = 1
CANNOT_START = 3


def now() -> datetime:
    """Whole seconds, as the API keeps them."""
    return datetime.now(UTC).replace(microsecond=0)


async def run(settings: Settings, stopping: Stopping) -> None:
    """Until asked to stop."""
    try:
        config = KubeConfig.from_env().get()
        transport = _unlimited(config)
    except ConfigError as error:
        print(f"postroom-operator: no Kubernetes: {error}; run in a pod with a ServiceAccount, or set KUBECONFIG", file=sys.stderr)
        raise SystemExit(CANNOT_START) from None
    timeout = httpx2.Timeout(REQUEST_SECONDS)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(config, timeout=timeout, trust_env=False))
        watcher = await stack.enter_async_context(AsyncClient(config, timeout=timeout, trust_env=False, transport=transport))
        operator = Operator(settings, Api(client, settings.failpoint), watcher)
        await stack.enter_async_context(http.serve(settings.http, http.application(operator.unready, operator.dead)))
        await operator.lead(stopping)


def _unlimited(config: SingleConfig | None) -> httpx2.AsyncHTTPTransport:
    """A connection per watch, however many: the default of 100 would let some wait for ever. HTTP/2 would share one, and lost events here (tried)."""
    if config is None or config.user is None:
        raise ConfigError("no user in the kubeconfig")
    verify = client_adapter.verify_cluster(config.cluster, config.user, config.abs_file, trust_env=False)
    return httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20))


class Operator:
    """One process; leads or waits."""

    def __init__(self, settings: Settings, api: Api, watcher: AsyncClient) -> None:
        self._settings, self._api, self._watcher = settings, api, watcher
        identity = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
        place = (settings.platform_namespace, f"{settings.release}-operator")
        self._election = Election(api, place, identity, settings.lease_seconds, lambda: os._exit(LOST))
        self._caches, self._engine = Caches(), Engine()
        self._tasks: list[asyncio.Task[None]] = []
        self._leads = False

    def unready(self) -> str:
        """The reason why this process could not take over, or ""."""
        silent = time.monotonic() - self._election.tried_at
        return f"the Lease was last asked for {silent:.0f} s ago" if silent > self._settings.lease_seconds else ""

    def dead(self) -> str:
        """The reason why this process must be started anew, or ""."""
        if not self._leads:
            return ""
        if self._engine.longest_run > 2 * RUN_SECONDS:
            return "a reconcile hangs"
        if (silent := self._caches.silent_seconds()) > SILENT_SECONDS:
            return f"a watch is silent for {silent:.0f} s"
        return ""

    async def lead(self, stopping: Stopping) -> None:
        """Waits for the Lease, works, gives it back."""
        acquired, stopped = asyncio.create_task(self._election.acquire()), asyncio.create_task(stopping.wait())
        await asyncio.wait([acquired, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not acquired.done():
            acquired.cancel()
            return
        self._leads = True
        self._holding = self._start(self._election.hold())
        try:
            await self._work(stopping)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            log.info("operator ends")

    async def _work(self, stopping: Stopping) -> None:
        world = self._world()
        self._watch_everything(world)
        await self._caches.synced()
        platform.remember_usernames(world)
        domains, pools = MailDomains(world), SendingPools(world)
        registry = handlers.register(
            self._engine,
            {
                "MailDomain": ("maildomains", domains.reconcile, domains.finalize),
                "SendingPool": ("sendingpools", pools.reconcile, pools.finalize),
            },
        )
        whole = platform.owner_of_all(self._settings)
        self._start(self._engine.serve(whole.kind, whole.uid, (whole.namespace, whole.name), platform.Platform(world).reconcile))
        self._start(supervised("discovery", lambda: self._discover(world), pause_seconds=10.0))
        stop_flag, ready_flag = asyncio.Event(), asyncio.Event()
        self._start(self._end(stopping, stop_flag))
        self._start(_take_signals(ready_flag, stopping))
        namespaces = self._settings.watch_namespaces
        await kopf.operator(
            registry=registry, standalone=True, clusterwide=not namespaces, namespaces=namespaces, stop_flag=stop_flag, ready_flag=ready_flag
        )

    async def _end(self, stopping: Stopping, stop_flag: asyncio.Event) -> None:
        """No reconcile begins, running ones end, then the Lease is given back: the next leader need not wait for what kopf still has to close."""
        await stopping.wait()
        await self._engine.stop()
        self._holding.cancel()
        with contextlib.suppress(PostroomError):  # the next leader waits for the Lease's time then
            await self._election.release()
        stop_flag.set()

    def _world(self) -> World:
        settings = self._settings
        return World(
            settings=settings,
            api=self._api,
            caches=self._caches,
            children=Children(self._api, self._caches),
            engine=self._engine,
            lookout=Lookout(Authority(settings.resolvers), now, self._engine.wake),
            signers=ServiceSigners(
                self._api,
                (settings.platform_namespace, settings.signers),
                settings.signer_port,
                settings.grpc_tls,
            ),
            ingresses=ServiceIngresses(self._api, (settings.platform_namespace, settings.ingresses), settings.ingress_http_port),
            now=now,
            rotations=Budget(settings.rotations_per_hour),
        )

    # What is watched

    def _watch_everything(self, world: World) -> None:
        for namespace in self._settings.watch_namespaces or (EVERYWHERE,):
            self._watch(MAIL_DOMAIN, namespace, {}, lambda found: self._domain_changed(world, found))
            self._watch(SENDING_POOL, namespace, {}, lambda found: self._pool_changed(world, found))
        for kind in CHILDREN:
            if kind_name(kind) not in OPTIONAL:
                self._watch(kind, self._settings.platform_namespace, MANAGED, self._child_changed)
        if self._settings.key_namespace != self._settings.platform_namespace:
            self._watch(SECRET, self._settings.key_namespace, MANAGED, self._child_changed)

    def _watch(self, kind: Kind, namespace: str, labels: dict[str, str], changed: Changed) -> None:
        cache = Cache((self._api, self._watcher), kind, namespace, labels, changed)
        self._caches.add(kind_name(kind), namespace, cache)
        self._start(supervised(f"watch of {kind_name(kind)} in {namespace}", cache.run))

    async def _discover(self, world: World) -> None:
        """Watches what comes later: kinds of other operators, and the Secrets of tenants that have a MailDomain or SendingPool."""
        while True:
            for kind in CHILDREN:
                name = kind_name(kind)
                place = self._settings.platform_namespace if name == "ScaledObject" else EVERYWHERE
                if name in OPTIONAL and not self._caches.has(name, place) and await self._api.served(OPTIONAL[name]):
                    self._watch(kind, place, MANAGED, self._child_changed)
            self._watch_tenants(world)
            await asyncio.sleep(DISCOVER_SECONDS)

    def _watch_tenants(self, world: World) -> None:
        tenants = {found["metadata"]["namespace"] for kind in ("MailDomain", "SendingPool") for found in world.resources(kind)}
        for namespace in sorted(tenants - {self._settings.platform_namespace, self._settings.key_namespace}):
            if not self._caches.has("Secret", namespace):
                self._watch(SECRET, namespace, {CREDENTIAL: "true"}, lambda found: self._secret_changed(world, found))

    # Who is woken

    def _child_changed(self, found: Object) -> None:
        """Its owner; the certificates between services are the installation's."""
        self._engine.wake(found["metadata"].get("labels", {}).get(OWNER_UID, platform.owner_of_all(self._settings).uid))

    def _secret_changed(self, world: World, found: Object) -> None:
        """Wakes whoever may refer to a Secret of this namespace; there are few in a tenant's namespace."""
        for kind in ("MailDomain", "SendingPool"):
            for resource in world.resources(kind):
                if resource["metadata"]["namespace"] == found["metadata"]["namespace"]:
                    self._engine.wake(resource["metadata"]["uid"])

    def _domain_changed(self, world: World, found: Object) -> None:
        """Itself, those that claim the same domain, and the pool that counts it."""
        self._engine.wake(found["metadata"]["uid"])
        for other in world.resources("MailDomain"):
            if other["spec"]["domainName"] == found["spec"]["domainName"]:
                self._engine.wake(other["metadata"]["uid"])
        if not self._caches.has("Secret", found["metadata"]["namespace"]):
            self._watch_tenants(world)

    def _pool_changed(self, world: World, found: Object) -> None:
        """Itself and its domains."""
        self._engine.wake(found["metadata"]["uid"])
        for domain in world.resources("MailDomain"):
            if domain["spec"]["poolRef"]["name"] == found["metadata"]["name"]:
                self._engine.wake(domain["metadata"]["uid"])

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        self._tasks.append(asyncio.create_task(work))
        return self._tasks[-1]


async def _take_signals(ready: asyncio.Event, stopping: Stopping) -> None:
    """kopf puts its own handlers in the place of ours when it starts; they cancel daemons in the middle of a write."""
    await ready.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.request)
