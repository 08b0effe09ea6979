"""What the world's DNS shows of a record: every authoritative server of its zone is asked, on every address. Decides nothing about keys.

The zone is found by walking up to the SOA, after following CNAMEs; its servers come from NS. Answers are taken from the servers themselves,
because a resolver's cache shows one server's past. UDP first, TCP when truncated; an address family that this machine does not have is left out.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver

from postroom_core.resolvers import resolver
from postroom_operator.plan.dkim import Seen

SECONDS = 4.0  # of one question; an authority that needs longer is as good as silent
MOST_ALIASES = 8
MOST_SERVERS = 26  # addresses of one zone: the root's own number
DEFAULT_NEGATIVE_SECONDS = 3600


class Unknown(Exception):
    """The zone or its servers cannot be found now."""


@dataclass(frozen=True, slots=True)
class _Zone:
    name: dns.name.Name  # of the record, after aliases
    addresses: tuple[str, ...]
    negative_ttl: int


class Authority:
    """Looks by way of `resolvers` (ADDRESS:PORT), or the system's, for who is authoritative."""

    def __init__(self, resolvers: Sequence[str] = ()) -> None:
        self._resolver = resolver(resolvers, SECONDS)

    async def look(self, name: str, rdtype: str, wanted: str, now: datetime) -> Seen:
        """How many servers show exactly one record of the kind, and it is `wanted`. An unknown zone is `total` 0."""
        try:
            zone = await self._zone(dns.name.from_text(name))
        except (Unknown, dns.exception.DNSException, OSError):
            return Seen(now, 0, 0)
        answers = await asyncio.gather(*(self._ask(address, zone.name, rdtype) for address in zone.addresses))
        reached = [answer for answer in answers if answer is not _UNREACHABLE]
        agree = sum(1 for answer in reached if answer is not None and matches(answer, rdtype, wanted))
        gone = bool(reached) and all(answer == [] for answer in reached)
        return Seen(now, agree, len(reached), gone, zone.negative_ttl)

    async def _zone(self, name: dns.name.Name) -> _Zone:
        for _ in range(MOST_ALIASES):
            answer = await self._resolver.resolve(name, "CNAME", raise_on_no_answer=False, search=False) if await self._exists(name) else None
            if answer is None or answer.rrset is None:
                break
            name = answer.rrset[0].target
        cut = name
        while cut != dns.name.root:
            found = await self._quiet(cut, "SOA")
            if found is not None and found.rrset is not None and found.rrset.name == cut:
                soa = found.rrset[0]
                return _Zone(name, await self._servers(cut), int(min(soa.minimum, found.rrset.ttl)))
            cut = cut.parent()
        raise Unknown(f"no zone for {name}")

    async def _exists(self, name: dns.name.Name) -> bool:
        return await self._quiet(name, "CNAME") is not None

    async def _quiet(self, name: dns.name.Name, rdtype: str) -> dns.resolver.Answer | None:
        try:
            return await self._resolver.resolve(name, rdtype, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return None

    async def _servers(self, zone: dns.name.Name) -> tuple[str, ...]:
        servers = await self._resolver.resolve(zone, "NS", search=False)
        found: list[str] = []
        for server in servers:
            for rdtype in ("A", "AAAA"):
                answer = await self._quiet(server.target, rdtype)
                found += [record.address for record in answer.rrset or ()] if answer is not None else []
        if not found:
            raise Unknown(f"the servers of {zone} have no address")
        return tuple(sorted(set(found))[:MOST_SERVERS])

    async def _ask(self, address: str, name: dns.name.Name, rdtype: str) -> list[str] | None:
        """The texts of the records; [] for none, None for no proper answer, _UNREACHABLE without a way there."""
        query = dns.message.make_query(name, rdtype)
        query.flags &= ~dns.flags.RD
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(query, address, timeout=SECONDS)
        except OSError as error:
            return _UNREACHABLE if error.errno in _NO_WAY else None
        except dns.exception.DNSException:
            return None
        if answer.rcode() == dns.rcode.NXDOMAIN:
            return []
        if answer.rcode() != dns.rcode.NOERROR:
            return None
        rrset = answer.get_rrset(dns.message.ANSWER, name, dns.rdataclass.IN, dns.rdatatype.from_text(rdtype))
        return [] if rrset is None else [_text(record) for record in rrset]


_UNREACHABLE = ["unreachable"]
_NO_WAY = (101, 113, 99, 97)  # ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT


def _text(record: object) -> str:
    strings = getattr(record, "strings", None)
    return b"".join(strings).decode("utf-8", "replace") if strings is not None else str(record)


def matches(found: Sequence[str], rdtype: str, wanted: str) -> bool:
    """Whether the records at a name are the wanted one. Of DKIM and DMARC exactly one may be there, of others nothing else; in TXT spaces and the
    order of tags do not count."""
    if rdtype != "TXT":
        return [_plain(text) for text in found] == [_plain(wanted)]
    ours = [text for text in found if _tags(text).get("v", "").lower() == _tags(wanted).get("v", "").lower() or "p" in _tags(text)]
    return len(ours) == 1 and _tags(wanted).items() <= _tags(ours[0]).items()


def _plain(text: str) -> str:
    """Of an MX: names have no case, and a dot at their end says nothing new."""
    return text.lower().rstrip(".")


def _tags(text: str) -> dict[str, str]:
    parts = [part.partition("=") for part in text.split(";") if "=" in part]
    return {name.strip(): "".join(value.split()) for name, _, value in parts}
