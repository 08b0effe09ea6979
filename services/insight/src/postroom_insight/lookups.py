"""The only place here that asks DNS: runs evaluators (see `question`) against resolvers, and asks authoritative servers themselves.

Every question has a deadline, an answer is kept for the run, and a question that cannot be answered is an Answer too: nothing raises.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

from postroom_core.resolvers import resolver
from postroom_insight.question import Answer, Asking, Question, Status, T

SECONDS = 5.0
# A zone with more servers than this is checked at the first ones.
MOST_SERVERS = 8
# Receivers ask one question after the other too; this bounds what one check may send at once.
AT_ONCE = 16
Place = tuple[str, int]


class Lookups:
    """`servers` are ADDRESS:PORT of resolvers, empty is the system's. Raises Permanent when the system has none."""

    def __init__(self, servers: Sequence[str], *, authoritative_port: int = 53, seconds: float = SECONDS) -> None:
        self._resolver = resolver(servers, seconds)
        self._seconds = seconds
        self._authoritative_port = authoritative_port
        self._known: dict[Question, asyncio.Task[Answer]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, asking: Asking[T]) -> T:
        """Drives an evaluator to its end."""
        answer: Answer | None = None
        while True:
            try:
                question = asking.send(answer)  # type: ignore[arg-type]
            except StopIteration as done:
                result: T = done.value
                return result
            answer = await self.ask(question)

    async def ask(self, question: Question) -> Answer:
        """Asked once; later the same answer."""
        if question not in self._known:
            self._known[question] = asyncio.create_task(self._ask(question))
        return await self._known[question]

    async def _ask(self, question: Question) -> Answer:
        try:
            name = dns.name.from_text(question.name, origin=dns.name.root)
            async with self._room:
                answer = await self._resolver.resolve(name, question.type, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return Answer(Status.ABSENT)
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape):
            return Answer(Status.ABSENT)
        except dns.resolver.LifetimeTimeout:
            return Answer(Status.FAILED, reason=f"no answer for {question.name} {question.type} within {self._seconds:.0f} s")
        except (dns.exception.DNSException, OSError) as error:
            return Answer(Status.FAILED, reason=f"no answer for {question.name} {question.type} ({type(error).__name__})")
        return _answer(answer.rrset or ())

    async def authoritative(self, domain: str) -> list[Place]:
        """The servers of the zone that holds `domain`, by address; empty when they cannot be found."""
        labels = domain.split(".")
        for at in range(len(labels) - 1):
            names = await self.ask(Question(".".join(labels[at:]), "NS"))
            if names.values:
                addresses = await asyncio.gather(*(self.addresses(name) for name in names.values[:MOST_SERVERS]))
                return [(found[0], self._authoritative_port) for found in addresses if found]
        return []

    async def addresses(self, name: str) -> list[str]:
        """IPv4 before IPv6."""
        answers = await asyncio.gather(self.ask(Question(name, "A")), self.ask(Question(name, "AAAA")))
        return [value for answer in answers for value in answer.values]

    async def ask_at(self, place: Place, question: Question) -> Answer:
        """One server, without recursion; over TCP when the answer does not fit."""
        query = dns.message.make_query(question.name, question.type, flags=0)
        try:
            response, _ = await dns.asyncquery.udp_with_fallback(query, place[0], timeout=self._seconds, port=place[1])
        except (dns.exception.DNSException, OSError) as error:
            return Answer(Status.FAILED, reason=f"{place[0]} does not answer ({type(error).__name__})")
        if response.rcode() == dns.rcode.NXDOMAIN:
            return Answer(Status.ABSENT)
        if response.rcode() != dns.rcode.NOERROR:
            return Answer(Status.FAILED, reason=f"{place[0]} answers {dns.rcode.to_text(response.rcode())}")
        kind = dns.rdatatype.from_text(question.type)
        return _answer([record for rrset in response.answer if rrset.rdtype == kind for record in rrset])


def _answer(records: Iterable[dns.rdata.Rdata]) -> Answer:
    values = tuple(_text(record) for record in records)
    return Answer(Status.FOUND if values else Status.EMPTY, values)


def _text(record: dns.rdata.Rdata) -> str:
    match record:
        case TXT():
            return b"".join(record.strings).decode("latin-1")
        case MX():
            return f"{record.preference} {record.exchange.to_text(omit_final_dot=True)}"
    return record.to_text().removesuffix(".")


def outward_addresses() -> list[str]:
    """Public addresses of this machine that a connection to the world would leave from; sends nothing. Behind NAT there are none."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))  # a UDP connect only asks the routing table
                address = probe.getsockname()[0]
            except OSError:
                continue
        if ipaddress.ip_address(address).is_global:
            found.append(str(address))
    return found
