"""DNS for delivery: MX, addresses, TXT and TLSA, asynchronously, with a bounded cache. Decides only what kind of failure an answer is.

Names are always absolute: a pod's search list must never turn mx.example into a cluster name. NXDOMAIN is permanent, everything that another
moment could answer differently is temporary (R5321.8). A truncated answer is asked for again over TCP, a CNAME is followed.

Whether an answer is secure (DNSSEC) is what the resolver says by its AD bit. That bit is worth as much as the resolver and the way to it, so it is
believed only of resolvers that POSTROOM_RESOLVERS names: naming one states that it validates and that nobody sits in between (RFC 7672,
section 2.1.1).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

from postroom_core.errors import Permanent, PostroomError, Transient
from postroom_core.resolvers import resolver
from postroom_delivery.dane import Tlsa

# One name costs an attempt at most this; two resolvers get a chance within it.
LIFETIME_SECONDS = 15.0
# Some hundred bytes an answer: tens of MiB at most.
CACHE_ANSWERS = 20_000
# A domain that appears or is mended must not wait for the TTL of its absence; a record must not outlive a day of silence (R5321.8, F8).
NEGATIVE_SECONDS = 300
POSITIVE_SECONDS = 86_400
MOST_ADDRESSES = 8
MOST_TLSA = 32
# What passes every path without fragments (DNS flag day 2020).
UDP_PAYLOAD = 1232


class NoSuchDomain(Permanent):
    """NXDOMAIN, or a name that DNS cannot hold."""


class NullMx(Permanent):
    """The domain says that it takes no mail (RFC 7505)."""


@dataclass(frozen=True, slots=True)
class Mx:
    """(preference, host) as published; empty when the domain has no MX. `secure`: the answer, or its absence, is authentic.

    `seconds` is how long the answer may still be used.
    """

    records: tuple[tuple[int, str], ...]
    secure: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """IPv6 and IPv4 addresses in turn, at most 8. `canonical` is the host's name behind its CNAMEs; `secure` means every step to the addresses."""

    addresses: tuple[str, ...]
    canonical: str
    secure: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    records: tuple[Any, ...]
    canonical: str
    secure: bool
    expires_at: float  # in Unix seconds, as dnspython has it


class Resolver:
    """`servers` are ADDRESS:PORT; empty is the system's configuration, whose AD bit counts for nothing. Raises Permanent when there is none."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._trusted = bool(servers)
        self._resolver = resolver(servers, LIFETIME_SECONDS)
        self._resolver.cache = _Cache(CACHE_ANSWERS)
        self._resolver.set_flags(dns.flags.RD | dns.flags.AD)  # AD in a question asks for AD in the answer (RFC 6840 section 5.7)
        self._resolver.use_edns(0, 0, UDP_PAYLOAD)

    async def mx(self, domain: str) -> Mx:
        """Raises NoSuchDomain, NullMx, Transient."""
        answer = await self._query(domain, dns.rdatatype.MX)
        if answer.records and all(record.exchange == dns.name.root for record in answer.records):
            raise NullMx(f"{domain} takes no mail (null MX)")
        hosts = [(record.preference, _text(record.exchange)) for record in answer.records if record.exchange != dns.name.root]
        return Mx(tuple(hosts), answer.secure, answer.expires_at - time.time())

    async def addresses(self, host: str) -> Addresses:
        """Raises NoSuchDomain, and Transient when no family answered with an address and one did not answer."""
        kinds = (dns.rdatatype.AAAA, dns.rdatatype.A)
        results = await asyncio.gather(*(self._query(host, kind) for kind in kinds), return_exceptions=True)
        answers = [result for result in results if isinstance(result, _Answer)]
        families = [[str(record.address) for record in answer.records] for answer in answers]
        failures = sorted((r for r in results if isinstance(r, BaseException)), key=lambda error: isinstance(error, NoSuchDomain))
        if failures and not (any(families) and isinstance(failures[0], PostroomError)):
            raise failures[0]
        found = [address for address in chain.from_iterable(zip_longest(*families)) if address is not None]
        secure = all(answer.secure for answer in answers)
        return Addresses(tuple(found[:MOST_ADDRESSES]), next((a.canonical for a in answers if a.records), answers[0].canonical), secure)

    async def txt(self, name: str) -> list[str]:
        """The TXT records of a name, the strings of each joined; empty when there is none. Raises Transient."""
        try:
            answer = await self._query(name, dns.rdatatype.TXT)
        except NoSuchDomain:
            return []
        return [b"".join(record.strings).decode("ascii", "replace") for record in answer.records]

    async def tlsa(self, name: str) -> tuple[Tlsa, ...]:
        """The secure TLSA records of a name, at most 32; insecure ones are as good as none. Raises Transient (RFC 7672 section 2.1.2)."""
        try:
            answer = await self._query(name, dns.rdatatype.TLSA)
        except NoSuchDomain:
            return ()
        records = answer.records[:MOST_TLSA] if answer.secure else ()
        return tuple(Tlsa(record.usage, record.selector, record.mtype, bytes(record.cert)) for record in records)

    async def _query(self, name: str, kind: dns.rdatatype.RdataType) -> _Answer:
        try:
            absolute = dns.name.from_text(name, origin=dns.name.root)
            answer = await self._resolver.resolve(absolute, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            raise NoSuchDomain(f"the domain name {name} does not exist") from error
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape, dns.name.IDNAException) as error:
            raise NoSuchDomain(f"{name} is not a domain name") from error
        except dns.resolver.LifetimeTimeout as error:
            raise Transient(f"DNS did not answer for {name} within {LIFETIME_SECONDS:.0f} s") from error
        except (dns.exception.DNSException, OSError) as error:
            raise Transient(f"DNS could not answer for {name} ({type(error).__name__})") from error
        secure = self._trusted and bool(answer.response.flags & dns.flags.AD)
        return _Answer(tuple(answer.rrset or ()), _text(answer.canonical_name), secure, answer.expiration)


class _Cache(dns.resolver.LRUCache):
    """An LRU cache whose entries live no longer than this file's limits, whatever their TTL."""

    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        most = POSITIVE_SECONDS if value.rrset is not None else NEGATIVE_SECONDS
        value.expiration -= max(0, value.chaining_result.minimum_ttl - most)
        super().put(key, value)


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
