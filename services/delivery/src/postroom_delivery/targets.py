"""Which hosts a destination's mail may go to, and what security each must give: what DNS, MTA-STS, DANE and the pool say. The hop's first half.

Smart host or MX → names in order → addresses that may be dialled, with the requirement of `security`. Looks things up and opens no connection to a
mail host. A host whose lookups fail is passed over, and the failure counts only when no other host is ready.
"""

import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from postroom_core.clock import Clock
from postroom_core.documents import Pool, SmartHost
from postroom_core.errors import Transient
from postroom_delivery import routing, security
from postroom_delivery.classify import Class
from postroom_delivery.dane import Tlsa
from postroom_delivery.outcome import Bounced, Deferred, later, never
from postroom_delivery.resolver import Addresses, Mx, NoSuchDomain, NullMx, Resolver
from postroom_delivery.security import Demand, Domain, Level, Requirement, Unfit
from postroom_delivery.session import Host
from postroom_delivery.spool.interface import Memory
from postroom_delivery.sts_policies import StsPolicies

Failure = Deferred | Bounced
MayDial = Callable[[str], bool]
# A domain that was there so recently is not believed to be gone: a forged or mistaken NXDOMAIN must not bounce its mail (A16).
REMEMBERED_MS = 86_400_000
# How often that is written down: twice within the time that it holds.
NOTE_SECONDS = 43_200.0
MOST_NOTED = 50_000
SMTP_PORT = 25
_EXISTS = "domain"
_SMART_LEVEL = {"Opportunistic": Level.OPPORTUNISTIC, "Required": Level.VERIFY, "Implicit": Level.VERIFY}


@dataclass(frozen=True, slots=True)
class Plan:
    """The next hop: host names in the order to try, and what is known of their domain; `smart` when the pool fixes the hop."""

    names: tuple[str, ...]
    domain: Domain
    demand: Demand
    smart: SmartHost | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A host's vetted addresses and what it must give."""

    hosts: tuple[Host, ...]
    required: Requirement
    smart: SmartHost | None


@dataclass(frozen=True, slots=True)
class Lookups:
    """What is asked: DNS, the MTA-STS policies, the memory."""

    resolver: Resolver
    policies: StsPolicies
    memory: Memory


class Targets:
    """`port` is that of MX hosts; `may_dial` vets their addresses."""

    def __init__(self, lookups: Lookups, own_name: str, port: int, may_dial: MayDial, clock: Clock) -> None:
        self._resolver = lookups.resolver
        self._policies = lookups.policies
        self._memory = lookups.memory
        self._own_name = own_name
        self._port = port
        self._may_dial = may_dial
        self._clock = clock
        self._noted: dict[str, float] = {}

    async def plan(self, pool: Pool, destination: str, demand: Demand) -> Plan | Failure:
        """The hosts to try. Raises Unavailable of the spool."""
        route = routing.route_named(pool, destination)
        if route is not None:
            return Plan((route.smart_host.host,), Domain(route.smart_host.host, from_mx=False), demand, route.smart_host)
        mx = await self._mx(destination)
        if not isinstance(mx, Mx):
            return mx
        names = routing.order_mx(mx.records, self._own_name, random.Random()) if mx.records else [destination]
        if not names:
            return never("5.4.6", f"the MX records of {destination} lead back to this host", Class.POLICY)
        policy = None if demand is Demand.RELAX else await self._policies.of(destination)
        rule = routing.tls_policy_of(pool, destination)
        trouble = self._policies.trouble(destination) if policy is None and demand is not Demand.RELAX else ""
        return Plan(tuple(names), Domain(destination, mx.secure, bool(mx.records), policy, rule, trouble), demand)

    async def target(self, plan: Plan, name: str) -> Target | Failure:
        """One host of a plan: where to dial and what it must give."""
        try:
            found = Addresses((name,), name) if plan.smart is not None and _is_address(name) else await self._resolver.addresses(name)
        except NoSuchDomain as error:
            return never("5.4.4", str(error), Class.DNS)
        except Transient as error:
            return later("4.4.3", str(error), Class.DNS)
        # A smart host is named by the operator of the pool, so a private address is what he wants.
        good = [address for address in found.addresses if plan.smart is not None or self._may_dial(address)]
        if not good:
            return _nowhere(name, found)
        required = await self._required(plan, name, found)
        if isinstance(required, (Deferred, Bounced)):
            return required
        port = plan.smart.port if plan.smart is not None else self._port
        return Target(tuple(Host(name, address, port) for address in good), required, plan.smart)

    # What DNS says

    async def _mx(self, domain: str) -> Mx | Failure:
        try:
            found = await self._resolver.mx(domain)
        except NullMx as error:
            return never("5.1.10", str(error), Class.UNKNOWN_USER)
        except NoSuchDomain as error:
            if await self._memory.recall(self._clock.now_ms(), _EXISTS, domain) is not None:
                return later("4.4.3", f"{error} now, but it did within the last day", Class.DNS)
            return never("5.1.2", str(error), Class.DNS)
        except Transient as error:
            return later("4.4.3", str(error), Class.DNS)
        await self._note(domain)
        return found

    async def _note(self, domain: str) -> None:
        now = self._clock.monotonic()
        if self._noted.get(domain, 0.0) > now:
            return
        if len(self._noted) >= MOST_NOTED:
            self._noted.clear()
        self._noted[domain] = now + NOTE_SECONDS
        wall = self._clock.now_ms()
        await self._memory.remember(wall, _EXISTS, domain, "", wall + REMEMBERED_MS)

    async def _tlsa(self, name: str, found: Addresses) -> tuple[tuple[Tlsa, ...], str]:
        """The host's authentic records and the name where they are: the end of its CNAMEs first, then its own (RFC 7672 section 2.2.2).

        Where the port of MX hosts is set to another, the records of port 25 count too: the setting says where port 25 really is.
        """
        for base in dict.fromkeys((found.canonical, name)):
            for port in dict.fromkeys((self._port, SMTP_PORT)):
                if records := await self._resolver.tlsa(f"_{port}._tcp.{base}"):
                    return records, base
        return (), name

    # What that demands

    async def _required(self, plan: Plan, name: str, found: Addresses) -> Requirement | Failure:
        if plan.smart is not None:
            return _of_smart_host(plan)
        records: tuple[Tlsa, ...] = ()
        base = name
        if plan.domain.secure and found.secure and (plan.demand is not Demand.RELAX or plan.domain.rule == "Dane"):
            try:
                records, base = await self._tlsa(name, found)
            except Transient as error:  # going on without would be the downgrade that an attacker wants (RFC 7672 section 2.1.2)
                return later("4.7.5", f"the TLSA records of {name} cannot be told: {error}", Class.TLS, tls_result="dnssec-invalid")
        required = security.require(plan.domain, name, records, base, plan.demand)
        return refused(required) if isinstance(required, Unfit) else required


def refused(unfit: Unfit) -> Failure:
    """A host that does not give what is demanded, as an outcome."""
    status, make = ("5.7.30", never) if unfit.final else ("4.7.5", later)
    return make(status, unfit.text, Class.TLS, tls_result=unfit.result)


def _of_smart_host(plan: Plan) -> Requirement:
    smart = plan.smart
    level = _SMART_LEVEL[smart.tls] if smart is not None else Level.OPPORTUNISTIC
    required = Requirement(level, "the route" if level else "")
    if plan.demand is Demand.REQUIRE:
        required = replace(required, level=Level.VERIFY, source="PKIX for REQUIRETLS", requiretls=True)
    return required


def _nowhere(name: str, found: Addresses) -> Failure:
    if found.addresses:
        return never("5.4.4", f"{name} leads to addresses that may not be dialled: {', '.join(found.addresses[:3])}", Class.POLICY)
    return never("5.4.4", f"{name} has no address", Class.DNS)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
