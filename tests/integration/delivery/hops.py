"""The hop alone with real sockets: DNS server and sink on loopback, a memory that is a dict, policies as told."""

import functools
import ipaddress
from collections.abc import Mapping

from postroom_core.clock import Clock, SystemClock
from postroom_core.errors import Transient
from postroom_core.testing.dns import DnsServer
from postroom_delivery import routing
from postroom_delivery.hop import Hops, HopSettings
from postroom_delivery.resolver import Resolver
from postroom_delivery.session import Deadlines
from postroom_delivery.sts_policies import StsPolicies
from postroom_delivery.targets import Lookups, Targets

LOOPBACK = (ipaddress.IPv4Network("127.0.0.0/8"),)


class DictMemory:
    """As the spool's, but in memory."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], tuple[str, int]] = {}

    async def recall(self, now: int, kind: str, name: str) -> str | None:
        value, until = self.values.get((kind, name), ("", 0))
        return value if until > now else None

    async def remember(self, now: int, kind: str, name: str, value: str, until: int) -> None:
        self.values[kind, name] = (value, until)

    async def agree(self, now: int, kind: str, name: str, value: str, until: int) -> str:
        stands = await self.recall(now, kind, name)
        if stands is None:
            await self.remember(now, kind, name, value, until)
        return stands if stands is not None else value


def hops_for(
    dns: DnsServer,
    port: int,
    *,
    policies: Mapping[str, str] | None = None,
    ca_file: str = "",
    deadlines: Deadlines | None = None,
    clock: Clock | None = None,
) -> Hops:
    """Hops that ask `dns` and dial `port` on loopback; `policies` are MTA-STS texts by domain."""
    clock, memory, resolver = clock or SystemClock(), DictMemory(), Resolver((dns.target,))

    async def fetch(domain: str) -> str:
        if policies is None or domain not in policies:
            raise Transient("no policy host")
        return policies[domain]

    may_dial = functools.partial(routing.may_dial, allowed=LOOPBACK)
    targets = Targets(Lookups(resolver, StsPolicies(resolver, fetch, memory, clock), memory), "me.example", port, may_dial, clock)
    return Hops(targets, HopSettings("me.example", ca_file, deadlines or Deadlines()), clock)
