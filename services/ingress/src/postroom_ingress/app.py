"""Ingress as a process: follows the directory, opens the ports, serves HTTP; closes in reverse and drains."""

import asyncio
import contextlib
import ipaddress
import mmap
import secrets
import sys

import aiohttp.web
import structlog

from postroom_core import http, rpc
from postroom_core.clock import SystemClock
from postroom_core.directory import Directory, source
from postroom_core.documents import Certificate, Domain
from postroom_core.errors import Permanent, Transient
from postroom_core.lifecycle import Stopping, supervised
from postroom_core.snapshot import Snapshot
from postroom_ingress import web
from postroom_ingress.admission import Admission, Limits
from postroom_ingress.api import Api
from postroom_ingress.authenticator import Authenticator
from postroom_ingress.clients import Deliveries, SignerClient
from postroom_ingress.connections import Connections
from postroom_ingress.deadlines import DEFAULT, Deadlines
from postroom_ingress.dialogue import Kind, Offer
from postroom_ingress.headcount import Headcount, size
from postroom_ingress.listeners import Listeners, Port
from postroom_ingress.policy import Policy
from postroom_ingress.reception import Services
from postroom_ingress.session import Listener
from postroom_ingress.settings import Settings
from postroom_ingress.submission import Submission
from postroom_ingress.tls import Tls
from postroom_ingress.tokens import Issuer, Tokens

log = structlog.get_logger(__name__)
# A transaction that is past DATA gets this long; Kubernetes' usual grace is 30 s, ours is set to more.
DRAIN_SECONDS = 60.0
CANNOT_START = 3
HEALTH_SECONDS = 1.0  # between two questions to signer and delivery; a load balancer asks us less often


class State:
    """What the directory says now, as sessions see it."""

    def __init__(self, spool: Deliveries, *, needs_certificate: bool) -> None:
        self.policy = Policy()
        self.tls = Tls()
        self.loaded = asyncio.Event()
        self.missing = "no directory yet"
        self.away = ""
        self._generations: dict[str, int] = {}
        self._spool = spool
        self._needs_certificate = needs_certificate

    def replace(self, snapshot: Snapshot) -> None:
        self.policy = Policy(snapshot)
        self._generations = {domain.name: domain.generation for domain in snapshot.of(Domain).values()}
        self.tls.replace(snapshot.of(Certificate).values())
        self.tls.trust(self.policy.authorities)
        self._spool.retain({domain.delivery_target for domain in snapshot.of(Domain).values()})
        self.missing = "no certificate yet" if self._needs_certificate and self.tls.current() is None else ""
        if not self.missing:
            self.loaded.set()

    async def generation(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        """Which generation of a MailDomain is in force here, for the operator; 404 for a domain that is not."""
        found = self._generations.get(request.match_info["domain"])
        return aiohttp.web.Response(text="unknown\n" if found is None else f"{found}\n", status=404 if found is None else 200)

    async def keep_asking(self, signer: rpc.Channel) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            await self.ask(signer)

    async def ask(self, signer: rpc.Channel) -> None:
        """Who of those that ingress needs is away: without them every message is answered 451, and somebody else should get the connections."""
        signing, storing = await asyncio.gather(rpc.is_serving(signer), self._spool.serving())
        self.away = "" if signing and storing else "the signer does not serve" if storing else "no delivery serves"


def ports(settings: Settings) -> list[tuple[Kind, Port]]:
    """The listeners that are configured."""
    places = (
        (Kind.SUBMISSION, "submission", settings.listen_submission, False),
        (Kind.SUBMISSION, "tls", settings.listen_tls, True),
        (Kind.RELAY, "relay", settings.listen_relay, False),
    )
    found = []
    for kind, name, where, implicit in places:
        if where:
            address, _, port = where.rpartition(":")
            behind = name in settings.proxy_listeners
            found.append((kind, Port(name, address.strip("[]"), int(port), implicit, proxy=behind, shared=bool(settings.ingress_worker))))
    return found


def deadlines(settings: Settings) -> Deadlines:
    """Those that are configured; the others have their reasons in postroom_ingress.deadlines."""
    configured = ("idle", "session", "proxy", "tls", "content", "grace", "error", "greeting")
    chosen = {name: getattr(settings, f"{name}_seconds") for name in configured}
    # Whoever allows less silence allows it everywhere.
    within = {name: min(getattr(DEFAULT, name), settings.idle_seconds) for name in ("line", "auth")}
    return Deadlines(least_rate=settings.least_rate, **chosen, **within)


def tokens(settings: Settings, clock: SystemClock) -> Tokens | None:
    """None when no issuer is configured."""
    if not settings.token_issuer:
        return None
    where = (settings.token_keys, settings.token_ca_file, settings.token_bearer_file)
    return Tokens(Issuer(settings.token_issuer, settings.token_audience, *where), clock)


async def run(settings: Settings, stopping: Stopping) -> None:
    """Until asked to stop. Exits with status 3 and one line when a port is taken or the configuration cannot be used."""
    try:
        await _serve(settings, stopping)
    except (Permanent, OSError) as error:
        print(f"postroom-ingress: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_START) from None


async def _serve(settings: Settings, stopping: Stopping) -> None:
    listening = False
    async with contextlib.AsyncExitStack() as stack:
        spool = Deliveries(lambda target: rpc.connect(target, "delivery", settings.grpc_tls), settings.delivery_target, SystemClock())
        stack.push_async_callback(spool.close)
        open_http = bool(settings.listen_http) and not web.is_private(settings.listen_http)
        state = State(spool, needs_certificate=open_http or any(port.implicit_tls for _, port in ports(settings)))
        directory = Directory(source(settings.directory))
        directory.subscribe(state.replace)
        with contextlib.suppress(Transient):  # not published yet: readiness says so
            directory.refresh()
        side_door = http.application(lambda: state.away if listening else state.missing)
        side_door.router.add_get("/generation/{domain}", state.generation)
        await stack.enter_async_context(http.serve(settings.http, side_door))
        follower = asyncio.create_task(supervised("directory", directory.follow))
        stack.callback(follower.cancel)
        signer = await stack.enter_async_context(rpc.connect(settings.signer_target, "signer", settings.grpc_tls))
        clock = SystemClock()
        await state.ask(signer)
        asking = asyncio.create_task(supervised("health", lambda: state.keep_asking(signer)))
        stack.callback(asking.cancel)
        services = Services(SignerClient(signer), spool, clock, deadlines(settings))
        authenticator = Authenticator(lambda: state.policy, clock, tokens(settings, clock), settings.error_seconds)
        headcount = _headcount(settings)
        connections = Connections(headcount)
        if not await _either(state.loaded, stopping):
            return
        limits = Limits(settings.max_connections, settings.max_connections_per_address, settings.max_connections_per_minute)
        listeners = Listeners(Admission(limits, headcount), tuple(map(ipaddress.ip_network, settings.proxy_networks)), clock)
        stack.push_async_callback(listeners.close)
        for kind, port in ports(settings):
            repair = port.name in settings.repair_line_ends
            offer = Offer(kind, settings.hostname, settings.max_message_bytes, settings.max_recipients, settings.max_hold_seconds, repair)
            listener = Listener(
                offer=offer,
                policy=lambda: state.policy,
                tls=state.tls.current,
                end_point=state.tls.end_point,
                secret=state.tls.secret,
                authenticator=authenticator,
                connections=connections,
                services=services,
            )
            await listeners.open(port, listener)
        if settings.listen_http:
            submission = Submission(services, settings.hostname, settings.max_message_bytes, settings.max_recipients)
            api = Api(submission, authenticator, spool).application()
            await stack.enter_async_context(web.serve(settings.listen_http, api, state.tls.current(), shared=bool(settings.ingress_worker)))
        listening = True
        log.info("ingress is serving", listeners=repr(listeners))
        await stopping.wait()
        log.info("ingress drains")
        await listeners.drain(DRAIN_SECONDS)


def _headcount(settings: Settings) -> Headcount:
    """In memory of this process alone, or in the file that the processes of one ingress share."""
    if not settings.ingress_worker:
        return Headcount(bytearray(secrets.token_bytes(16).ljust(size(1), b"\0")))
    with open(settings.ingress_headcount, "r+b") as file:
        return Headcount(memoryview(mmap.mmap(file.fileno(), 0)), settings.ingress_worker - 1)


async def _either(loaded: asyncio.Event, stopping: Stopping) -> bool:
    """Waits for the directory; False when the stop comes first."""
    waits = {asyncio.create_task(loaded.wait()), asyncio.create_task(stopping.wait())}
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return loaded.is_set() and not stopping.requested
