"""DNS for delivery: MX and addresses, asynchronously, with a bounded cache. Decides only what kind of failure an answer is.

Names are always absolute: a pod's search list must never turn mx.example into a cluster name. NXDOMAIN is permanent, everything that another
moment could answer differently is temporary (R5321.8).
"""

from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from postroom_core.errors import Permanent, Transient

# One name costs an attempt at most this; two resolvers get a chance within it.
LIFETIME_SECONDS = 15.0
# Some hundred bytes an answer: tens of MiB at most.
CACHE_ANSWERS = 20_000
MOST_ADDRESSES = 8


class NoSuchDomain(Permanent):
    """NXDOMAIN, or a name that DNS cannot hold."""


class NullMx(Permanent):
    """The domain says that it takes no mail (RFC 7505)."""


class Resolver:
    """`servers` are ADDRESS:PORT; empty is the system's configuration. Raises Permanent when the system has none."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise Permanent("the system has no DNS resolver configured; set POSTROOM_RESOLVERS") from error
        if servers:
            parts = [server.rpartition(":") for server in servers]
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(address.strip("[]"), int(port)) for address, _, port in parts]
        self._resolver.cache = dns.resolver.LRUCache(CACHE_ANSWERS)
        self._resolver.lifetime = LIFETIME_SECONDS
        self._resolver.search = []

    async def mx(self, domain: str) -> list[tuple[int, str]]:
        """(preference, host) as published; empty when the domain has no MX. Raises NoSuchDomain, NullMx, Transient."""
        answer = await self._query(domain, dns.rdatatype.MX)
        records = [(record.preference, record.exchange) for record in answer]
        if records and all(exchange == dns.name.root for _, exchange in records):
            raise NullMx(f"{domain} takes no mail (null MX)")
        return [(preference, exchange.to_text(omit_final_dot=True).lower()) for preference, exchange in records if exchange != dns.name.root]

    async def addresses(self, host: str) -> list[str]:
        """IPv6 and IPv4 addresses in turn, at most 8. Raises NoSuchDomain, Transient when no family answered."""
        found: list[list[str]] = []
        failure: Transient | None = None
        for kind in (dns.rdatatype.AAAA, dns.rdatatype.A):
            try:
                found.append([record.address for record in await self._query(host, kind)])
            except Transient as error:
                failure = error
        if failure is not None and not any(found):
            raise failure
        return [address for family in found for address in family][:MOST_ADDRESSES]

    async def _query(self, name: str, kind: dns.rdatatype.RdataType) -> list[Any]:
        try:
            absolute = dns.name.from_text(name, origin=dns.name.root)
            answer = await self._resolver.resolve(absolute, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            raise NoSuchDomain(f"the domain name {name} does not exist") from error
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape) as error:
            raise NoSuchDomain(f"{name} is not a domain name") from error
        except dns.resolver.LifetimeTimeout as error:
            raise Transient(f"DNS did not answer for {name} within {LIFETIME_SECONDS:.0f} s") from error
        except (dns.exception.DNSException, OSError) as error:
            raise Transient(f"DNS could not answer for {name} ({type(error).__name__})") from error
        return list(answer.rrset) if answer.rrset is not None else []
