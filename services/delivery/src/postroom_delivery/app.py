"""Delivery as a process: opens the spool, serves gRPC and HTTP, runs the scheduler; closes in reverse and drains."""

import asyncio
import contextlib
import functools
import ipaddress
import os
import secrets
import sys
from collections.abc import Callable

import structlog
from aiohttp import web

from postroom.v1 import analytics_pb2_grpc, queue_pb2_grpc, reputation_pb2_grpc, spool_pb2_grpc, suppression_pb2_grpc, webhooks_pb2_grpc
from postroom_core import http, rpc
from postroom_core.clock import SystemClock
from postroom_core.directory import Directory, source
from postroom_core.errors import Permanent, Transient
from postroom_core.lifecycle import Stopping, supervised
from postroom_delivery import https, routing
from postroom_delivery.analytics_servicer import AnalyticsServicer, keep
from postroom_delivery.clients import SignerClient
from postroom_delivery.hop import Hops, HopSettings
from postroom_delivery.pools import Pools
from postroom_delivery.queuestats import QueueStats
from postroom_delivery.reputation_keeper import Curbs
from postroom_delivery.reputation_servicer import ReputationServicer
from postroom_delivery.resolver import Resolver
from postroom_delivery.scheduler import Scheduler
from postroom_delivery.servicer import QueueServicer, SpoolServicer
from postroom_delivery.settings import Settings
from postroom_delivery.signing import Signing
from postroom_delivery.sites import Sites
from postroom_delivery.spool.interface import LEASE_MS
from postroom_delivery.spool.opening import open_spool
from postroom_delivery.sts_policies import StsPolicies, fetcher
from postroom_delivery.suppression import Suppressions
from postroom_delivery.suppression_servicer import SuppressionServicer
from postroom_delivery.targets import Lookups, Targets
from postroom_delivery.tls_reporting import TlsReporting, World
from postroom_delivery.tlsrpt import Reporter
from postroom_delivery.verp import Verp
from postroom_delivery.webhook_sender import Webhooks
from postroom_delivery.webhooks_servicer import WebhooksServicer
from postroom_delivery.worker import Parts, Worker

log = structlog.get_logger(__name__)
RPC_GRACE_SECONDS = 5.0
CANNOT_START = 3


async def run(settings: Settings, stopping: Stopping, *, lease_ms: int = LEASE_MS) -> None:
    """Until asked to stop. Exits with status 3 and one line when the configuration or the spool cannot be used."""
    try:
        await _serve(settings, stopping, lease_ms)
    except (Permanent, OSError) as error:
        print(f"postroom-delivery: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_START) from None


async def _serve(settings: Settings, stopping: Stopping, lease_ms: int) -> None:
    clock, resolver = SystemClock(), Resolver(settings.resolvers)
    sites = Sites(resolver)
    pools = Pools(sites.known)
    directory = Directory(source(settings.directory))
    directory.subscribe(pools.replace)
    with contextlib.suppress(Transient):  # not published yet: readiness says so
        directory.refresh()
    holder = f"{settings.hostname}-{os.getpid()}-{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        spool = await stack.enter_async_context(open_spool(settings.url_of_spool, holder, clock.now_ms(), pools.limits, lease_ms))
        counting = spool if settings.analytics else None
        signing = Signing(await _signer(settings, stack), settings.hostname, clock, spool.body)
        suppressions = Suppressions(spool, clock)
        verp = Verp(spool, clock)
        curbs = Curbs(spool, pools, clock)
        may_dial = _may_dial(settings)
        strangers = https.Https(resolver, may_dial, https.context(settings.ca_file))
        webhooks = Webhooks(spool, strangers, clock)
        directory.subscribe(webhooks.replace)
        policies = StsPolicies(resolver, fetcher(strangers, settings.mta_sts_port), spool, clock)
        targets = Targets(Lookups(resolver, policies, spool), settings.hostname, settings.remote_smtp_port, may_dial, clock)
        hops = Hops(targets, HopSettings(settings.hostname, settings.ca_file), clock)
        reporter = Reporter(settings.tls_report_sender.lower()) if settings.tls_report_sender else None
        parts = Parts(spool, pools, sites, hops, clock, settings.hostname, signing, suppressions, verp, tls_reports=reporter is not None)
        scheduler = Scheduler(spool, clock, lambda batch, owner: Worker(parts, batch).run(owner))

        def register(server: rpc.Server) -> None:
            spool_pb2_grpc.add_SpoolServicer_to_server(SpoolServicer(spool, pools, clock, curbs, settings.campaign_header), server)
            suppression_pb2_grpc.add_SuppressionServicer_to_server(SuppressionServicer(spool, suppressions, pools, clock, verp), server)
            queue_pb2_grpc.add_QueueServicer_to_server(QueueServicer(spool, pools, clock, settings.hostname, signing), server)
            reputation_pb2_grpc.add_ReputationServicer_to_server(ReputationServicer(curbs, clock), server)
            webhooks_pb2_grpc.add_WebhooksServicer_to_server(WebhooksServicer(spool, webhooks, clock), server)
            analytics_pb2_grpc.add_AnalyticsServicer_to_server(AnalyticsServicer(counting), server)

        side_door = http.application(lambda: spool.fault() if directory.snapshot.version else "no directory yet")
        side_door.add_routes([web.get("/queue-stats", QueueStats(spool, clock).answer)])
        await stack.enter_async_context(http.serve(settings.http, side_door))
        tasks = [asyncio.create_task(scheduler.run()), asyncio.create_task(supervised("directory", directory.follow))]
        if counting is not None:
            tasks.append(asyncio.create_task(supervised("analytics", lambda: keep(counting, clock))))
            tasks.append(asyncio.create_task(supervised("reputation", curbs.keep)))
        tasks.append(asyncio.create_task(supervised("curbs", curbs.follow)))
        tasks.append(asyncio.create_task(supervised("suppression", suppressions.follow)))
        tasks.append(asyncio.create_task(supervised("webhooks", webhooks.run)))
        if reporter is not None:
            reporting = TlsReporting(spool, pools, World(resolver, strangers), reporter, holder, clock)
            tasks.append(asyncio.create_task(supervised("TLS reports", reporting.follow)))
        stack.push_async_callback(_cancel, tasks)
        await stack.enter_async_context(rpc.serve(settings.listen, register, grace_seconds=RPC_GRACE_SECONDS, tls=settings.grpc_tls))
        log.info("delivery is serving", spool=spool.name, holder=holder)
        await stopping.wait()
        log.info("delivery drains")
        await scheduler.drain(settings.drain_seconds)


async def _signer(settings: Settings, stack: contextlib.AsyncExitStack) -> SignerClient | None:
    if not settings.signer_target:
        return None
    return SignerClient(await stack.enter_async_context(rpc.connect(settings.signer_target, "signer", settings.grpc_tls)))


def _may_dial(settings: Settings) -> Callable[[str], bool]:
    allowed, refused = ([ipaddress.ip_network(text) for text in texts] for texts in (settings.allowed_mx_networks, settings.refused_mx_networks))
    return functools.partial(routing.may_dial, allowed=allowed, refused=refused)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
