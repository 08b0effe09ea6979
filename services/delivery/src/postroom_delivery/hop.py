"""Finds the next hop of a destination and brings a session to the point where MAIL may be said. The first half of an attempt.

`targets` names the hosts and what each must give; here they are dialled in order until one is ready: connect, greeting, EHLO, STARTTLS, the
certificate judged, AUTH at a smart host. One bad host (dead, 421, 554, without the security that is demanded) costs nothing but time when another
is good (F9). With nothing demanded TLS is opportunistic: a host whose handshake fails is tried once more in clear on a new connection, and
remembered for an hour. A failure of a demand is for later, but REQUIRETLS, which is final.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from postroom_core.clock import Clock
from postroom_core.documents import Pool, SmartHost
from postroom_delivery import dane, https, security, tlsrpt
from postroom_delivery.classify import Class
from postroom_delivery.outcome import Bounced, Deferred, from_reply, later
from postroom_delivery.security import Demand, Level, Requirement, Unfit
from postroom_delivery.session import BROKEN, Deadlines, Host, Session, TlsFailed
from postroom_delivery.spool.tls_tally import TlsSession
from postroom_delivery.targets import Failure, Plan, Target, Targets, refused

log = structlog.get_logger(__name__)
Note = Callable[[TlsSession], None]
NOT_OFFERED, NO_STARTTLS = "STARTTLS is not offered", "starttls-not-supported"
BROKEN_TLS_SECONDS = 3600.0  # long enough to spare every message the failed handshake, short enough that a mended host is found
MOST_REMEMBERED = 10_000
# All addresses of all hosts: bounds an attempt at a dead domain to some minutes.
MOST_ADDRESSES = 12


@dataclass(frozen=True, slots=True)
class HopSettings:
    """Our EHLO name, the CA bundle that verifies hosts ("" is certifi's), and how long to wait for what."""

    own_name: str
    ca_file: str = ""
    deadlines: Deadlines = field(default_factory=Deadlines)


class Hops:
    """Opens sessions for destinations; one for the whole process."""

    def __init__(self, targets: Targets, settings: HopSettings, clock: Clock) -> None:
        self._targets = targets
        self._own_name = settings.own_name
        self._deadlines = settings.deadlines
        self._clock = clock
        self._broken_tls: dict[str, float] = {}
        self._verified = https.context(settings.ca_file)
        self._unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE
        self._unverified.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996

    async def open(self, pool: Pool, destination: str, demand: Demand = Demand.NORMAL, note: Note = lambda _: None) -> Session | Failure:
        """A session ready for MAIL, or why there is none: for now if any host may still take mail later, else for good.

        `note` hears how TLS went with each MX host, for reports (RFC 8460).
        """
        plan = await self._targets.plan(pool, destination, demand)
        if isinstance(plan, (Deferred, Bounced)):
            return plan
        account = _Account(plan, note)
        if plan.domain.sts_trouble:
            note(tlsrpt.without_policy(plan.domain))
        failures: list[Failure] = []
        dialled = 0
        for name in plan.names:
            target = await self._targets.target(plan, name)
            if isinstance(target, (Deferred, Bounced)):
                account.no_target(name, target)
                failures.append(target)
                continue
            for host in target.hosts[: MOST_ADDRESSES - dialled]:
                dialled += 1
                opened = await self._ready(host, target, account)
                if isinstance(opened, Session):
                    opened.demand = demand
                    return opened
                log.debug("host is not ready", host=str(host), reason=opened.cause.text)
                failures.append(opened)
        return next((failure for failure in reversed(failures) if isinstance(failure, Deferred)), failures[-1])

    # One host

    async def _ready(self, host: Host, target: Target, account: "_Account") -> Session | Failure:
        required, note = target.required, ""
        try:
            clear = required.level is Level.OPPORTUNISTIC and not required.testing and self._tls_is_broken(host)
            opened = await self._greeted(host, target, security.strict(required) if required.testing else required, clear=clear)
            account.opened(required, host, opened)
            return opened
        except TlsFailed as error:
            account.failed(required, host, error)
            if required.level is not Level.OPPORTUNISTIC:
                return _insecure(host, required, f"TLS failed: {error}")
            note = f"MTA-STS testing: would have been refused, {error}" if required.testing else ""
            if not required.testing:
                self._remember_broken_tls(host)
        except BROKEN as error:
            return _unreachable(host, error)
        return await self._once_more(host, target, note)

    async def _once_more(self, host: Host, target: Target, note: str) -> Session | Failure:
        """Without what failed, on a new connection: unverified in the testing mode of MTA-STS, else in clear."""
        try:
            try:
                return await self._greeted(host, target, target.required, note=note, clear=not target.required.testing)
            except TlsFailed:
                self._remember_broken_tls(host)
                return await self._greeted(host, target, target.required, note=note, clear=True)
        except (*BROKEN, TlsFailed) as error:
            return _unreachable(host, error)

    async def _greeted(self, host: Host, target: Target, required: Requirement, *, clear: bool = False, note: str = "") -> Session | Failure:
        smart = target.smart
        implicit = smart is not None and smart.tls == "Implicit"
        session = await Session.open(host, self._deadlines, self._verified if implicit else None)
        try:
            failure = await self._dialogue(session, smart, required, clear=clear)
        except BaseException:
            session.abort()
            raise
        if failure is not None:
            await session.quit()
            return failure
        session.security = security.told(session.connection.tls_text, required, note)
        return session

    async def _dialogue(self, session: Session, smart: SmartHost | None, required: Requirement, *, clear: bool) -> Failure | None:
        greeting = await session.reply(self._deadlines.greeting)
        if greeting.kind != 2:
            # 554 says that this host takes no mail now; another may. Only 521 speaks for good (RFC 7504).
            return from_reply(greeting) if greeting.code == 521 else _as_later(from_reply(greeting))
        reply = await session.hello(self._own_name)
        if reply.kind != 2:
            return _as_later(from_reply(reply))
        if not session.connection.tls and not clear and (failure := await self._secure(session, required)):
            return failure
        if required.requiretls and "REQUIRETLS" not in session.extensions:
            return _insecure(session.host, required, "does not offer REQUIRETLS")
        return await self._login(session, smart) if smart is not None and smart.username is not None else None

    async def _secure(self, session: Session, required: Requirement) -> Failure | None:
        """STARTTLS as demanded. Raises TlsFailed."""
        if "STARTTLS" not in session.extensions:
            if required.testing:
                raise TlsFailed(NOT_OFFERED)
            return None if required.level is Level.OPPORTUNISTIC else _insecure(session.host, required, "does not offer TLS", NO_STARTTLS)
        context = self._verified if required.level is Level.VERIFY else self._unverified
        names = required.names or (session.host.name,)

        def judge(chain: Sequence[bytes]) -> str:
            return dane.mismatch(chain, required.tlsa, names, self._clock.now_ms()) if required.level is Level.DANE else ""

        reply = await session.start_tls(context, self._own_name, names[0], judge)
        if not session.connection.tls and required.level is not Level.OPPORTUNISTIC:
            return _insecure(session.host, required, f"refused STARTTLS: {reply}", NO_STARTTLS)
        if reply.code == 421 or (session.connection.tls and reply.kind != 2):
            return _as_later(from_reply(reply))
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


class _Account:
    """How TLS went with the hosts of a plan. Smart hosts are nobody's policy, and who sets TLS aside is no failure of it."""

    def __init__(self, plan: Plan, note: Note) -> None:
        self._domain = plan.domain
        self._note = note if plan.smart is None and plan.demand is not Demand.RELAX else lambda _: None

    def no_target(self, name: str, failure: Failure) -> None:
        result, text = failure.cause.tls_result, failure.cause.text
        if result in ("dnssec-invalid", "dane-required"):
            self._note(tlsrpt.dane_refused(self._domain, result, name, text))
        elif result:
            self._note(tlsrpt.session(self._domain, None, result, (name, ""), text))

    def failed(self, required: Requirement, host: Host, error: TlsFailed) -> None:
        dane_demanded = required.level is Level.DANE
        result = NO_STARTTLS if str(error) == NOT_OFFERED else tlsrpt.of_handshake(error, dane=dane_demanded)
        self._note(tlsrpt.session(self._domain, required, result, (host.name, host.address), str(error)))

    def opened(self, required: Requirement, host: Host, opened: Session | Failure) -> None:
        where = (host.name, host.address)
        if not isinstance(opened, Session):
            if opened.cause.tls_result:
                self._note(tlsrpt.session(self._domain, required, opened.cause.tls_result, where, opened.cause.text))
        elif not opened.connection.tls:
            offered = "STARTTLS" in opened.extensions
            result = "validation-failure" if offered else NO_STARTTLS
            self._note(tlsrpt.session(self._domain, required, result, where, "TLS failed within the last hour" if offered else ""))
        elif required.level is Level.ENCRYPT and required.source.startswith("DANE"):
            self._note(tlsrpt.session(self._domain, required, "tlsa-invalid", where, "no usable TLSA record"))
        else:
            self._note(tlsrpt.session(self._domain, required))


def _as_later(failure: Failure) -> Deferred:
    return Deferred(failure.cause)


def _insecure(host: Host, required: Requirement, reason: str, result: str = "") -> Failure:
    return refused(Unfit(f"{host} {reason} ({required.source})", final=required.requiretls, result=result))


def _unreachable(host: Host, error: BaseException) -> Deferred:
    reason = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error) or "the connection was closed"
    return later("4.4.1", f"{host}: {reason}", Class.NETWORK)
