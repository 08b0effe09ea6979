"""Finds the next hop of a destination and brings a session to the point where MAIL may be said. The first half of an attempt.

Steps: smart host or MX → addresses → vetted addresses → connect, greeting, EHLO, STARTTLS in that order of hosts until one is ready. One bad host
(dead, 421, 554, broken TLS) costs nothing but time when another is good (F9). Without a policy TLS is opportunistic: taken when offered,
unverified; a host whose handshake fails is tried once more in clear on a new connection and remembered for an hour.
"""

import ipaddress
import random
import ssl
from dataclasses import dataclass, field

import certifi
import structlog

from postroom_core.clock import Clock
from postroom_core.documents import Pool, SmartHost
from postroom_core.errors import Transient
from postroom_delivery import routing
from postroom_delivery.classify import Class
from postroom_delivery.outcome import Bounced, Deferred, from_reply, later, never
from postroom_delivery.resolver import NoSuchDomain, NullMx, Resolver
from postroom_delivery.session import BROKEN, Deadlines, Host, Session, TlsFailed

log = structlog.get_logger(__name__)
BROKEN_TLS_SECONDS = 3600.0  # long enough to spare every message the failed handshake, short enough that a mended host is found
MOST_REMEMBERED = 10_000
# All addresses of all hosts: bounds an attempt at a dead domain to some minutes.
MOST_ADDRESSES = 12

Failure = Deferred | Bounced
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class HopSettings:
    """How this installation goes out. `allowed` are networks that may be dialled although private; `ca_file` "" is certifi's bundle."""

    own_name: str
    port: int = 25
    allowed: tuple[_Network, ...] = ()
    ca_file: str = ""
    deadlines: Deadlines = field(default_factory=Deadlines)


class Hops:
    """Opens sessions for destinations; one for the whole process."""

    def __init__(self, resolver: Resolver, settings: HopSettings, clock: Clock) -> None:
        self._resolver = resolver
        self._own_name = settings.own_name
        self._port = settings.port
        self._allowed = settings.allowed
        self._deadlines = settings.deadlines
        self._clock = clock
        self._broken_tls: dict[str, float] = {}
        self._unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE
        self._verified = ssl.create_default_context(cafile=settings.ca_file or certifi.where())
        for context in (self._unverified, self._verified):
            context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996

    async def open(self, pool: Pool, destination: str) -> Session | Failure:
        """A session ready for MAIL, or why there is none: for now if any host may still take mail later, else for good."""
        route = routing.route_named(pool, destination)
        smart = route.smart_host if route is not None else None
        names = [smart.host] if smart is not None else await self._mx_names(destination)
        if isinstance(names, (Deferred, Bounced)):
            return names
        failures: list[Failure] = []
        dialled = 0
        for name in names:
            hosts = await self._hosts(name, smart)
            if isinstance(hosts, (Deferred, Bounced)):
                failures.append(hosts)
                continue
            for host in hosts[: MOST_ADDRESSES - dialled]:
                dialled += 1
                opened = await self._ready(host, smart)
                if isinstance(opened, Session):
                    return opened
                log.debug("host is not ready", host=str(host), reason=opened.cause.text)
                failures.append(opened)
        return next((failure for failure in reversed(failures) if isinstance(failure, Deferred)), failures[-1])

    # Which hosts

    async def _mx_names(self, domain: str) -> list[str] | Failure:
        try:
            records = (await self._resolver.mx(domain)).records
        except NullMx as error:
            return never("5.1.10", str(error), Class.UNKNOWN_USER)
        except NoSuchDomain as error:
            return never("5.1.2", str(error), Class.DNS)
        except Transient as error:
            return later("4.4.3", str(error), Class.DNS)
        names = routing.order_mx(records, self._own_name, random.Random()) if records else [domain]
        return names or never("5.4.6", f"the MX records of {domain} lead back to this host", Class.POLICY)

    async def _hosts(self, name: str, smart: SmartHost | None) -> list[Host] | Failure:
        """The addresses of a host that may be dialled. A smart host is named by the operator of the pool, so a private address is what he wants."""
        try:
            literal = smart is not None and _is_address(name)
            addresses = (name,) if literal else (await self._resolver.addresses(name)).addresses
        except NoSuchDomain as error:
            return never("5.4.4", str(error), Class.DNS)
        except Transient as error:
            return later("4.4.3", str(error), Class.DNS)
        good = [address for address in addresses if smart is not None or routing.may_dial(address, self._allowed)]
        if addresses and not good:
            return never("5.4.4", f"{name} leads to addresses that may not be dialled: {', '.join(addresses[:3])}", Class.POLICY)
        port = smart.port if smart is not None else self._port
        return [Host(name, address, port) for address in good] or never("5.4.4", f"{name} has no address", Class.DNS)

    # One host

    async def _ready(self, host: Host, smart: SmartHost | None) -> Session | Failure:
        policy = smart.tls if smart is not None else "Opportunistic"
        clear = policy == "Opportunistic" and self._tls_is_broken(host)
        try:
            return await self._greeted(host, smart, clear=clear)
        except TlsFailed as error:
            if policy != "Opportunistic":
                return later("4.7.5", f"TLS with {host} failed: {error}", Class.TLS)
            self._remember_broken_tls(host)
        except BROKEN as error:
            return _unreachable(host, error)
        try:
            return await self._greeted(host, smart, clear=True)
        except (*BROKEN, TlsFailed) as error:
            return _unreachable(host, error)

    async def _greeted(self, host: Host, smart: SmartHost | None, *, clear: bool) -> Session | Failure:
        implicit = smart is not None and smart.tls == "Implicit"
        session = await Session.open(host, self._deadlines, self._verified if implicit else None)
        try:
            failure = await self._dialogue(session, smart, clear=clear)
        except BaseException:
            session.abort()
            raise
        if failure is not None:
            await session.quit()
            return failure
        return session

    async def _dialogue(self, session: Session, smart: SmartHost | None, *, clear: bool) -> Failure | None:
        greeting = await session.reply(self._deadlines.greeting)
        if greeting.kind != 2:
            # 554 says that this host takes no mail now; another may. Only 521 speaks for good (RFC 7504).
            return from_reply(greeting) if greeting.code == 521 else _as_later(from_reply(greeting))
        reply = await session.hello(self._own_name)
        if reply.kind != 2:
            return _as_later(from_reply(reply))
        policy = smart.tls if smart is not None else "Opportunistic"
        if policy != "Implicit" and not clear:
            if "STARTTLS" in session.extensions:
                reply = await session.start_tls(self._unverified if policy == "Opportunistic" else self._verified, self._own_name)
            if reply.code == 421 or (session.connection.tls and reply.kind != 2):
                return _as_later(from_reply(reply))
            if policy == "Required" and not session.connection.tls:
                return later("4.7.5", f"{session.host} does not offer TLS, which the route demands", Class.TLS)
        if smart is not None and smart.username is not None:
            return await self._login(session, smart)
        return None

    async def _login(self, session: Session, smart: SmartHost) -> Failure | None:
        if not session.connection.tls:
            return later("4.7.11", f"{session.host} offers no TLS, and credentials are not sent in clear", Class.TLS)
        reply = await session.login(smart.username or "", smart.password or "")
        # A refused credential is the configuration's fault, not the message's: it waits until that is mended or it expires.
        return None if reply.kind == 2 else _as_later(from_reply(reply))

    def _tls_is_broken(self, host: Host) -> bool:
        return self._broken_tls.get(host.address, 0.0) > self._clock.monotonic()

    def _remember_broken_tls(self, host: Host) -> None:
        if len(self._broken_tls) >= MOST_REMEMBERED:
            self._broken_tls.clear()
        self._broken_tls[host.address] = self._clock.monotonic() + BROKEN_TLS_SECONDS


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _as_later(failure: Failure) -> Deferred:
    return Deferred(failure.cause)


def _unreachable(host: Host, error: BaseException) -> Deferred:
    reason = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error) or "the connection was closed"
    return later("4.4.1", f"{host}: {reason}", Class.NETWORK)
