"""A name server for tests and for `postroom up --sink`: records as data, faults by name. dnspython does the wire format.

It listens on UDP and TCP at one port of a loopback address. It never forwards, never caches and never signs.
"""

import asyncio
import contextlib
import dataclasses
import struct
from typing import Literal, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Fault = Literal["SERVFAIL", "NXDOMAIN", "REFUSED", "TIMEOUT", "TRUNCATED"]
# Ports are tried until UDP and TCP get the same one; another process seldom holds the twin of a free port.
_BIND_ATTEMPTS = 20
_DEFAULT = "*"


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A question as it arrived."""

    name: str
    type: str
    transport: Literal["udp", "tcp"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Records:
    ttl: int
    texts: tuple[str, ...]


class DnsServer:
    """`async with DnsServer() as server: server.set("example.org", "MX", ["10 mx.example.org."])`.

    A known name without the asked type gets NOERROR and no answer; an unknown one NXDOMAIN, unless `set("*", …)` gave a default for
    the type. CNAMEs are followed among the known names. Raises OSError when no port can be bound.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.address = address
        self.port = port
        self.queries: list[Query] = []
        self.authentic = False  # answers have AD=1, as those of a resolver that validated them, but for names below one of `insecure`
        self.insecure: set[str] = set()
        self._records: dict[str, dict[str, _Records]] = {}
        self._faults: dict[str, Fault] = {}
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def target(self) -> str:
        """ADDRESS:PORT, as POSTROOM_RESOLVERS wants it."""
        return f"{self.address}:{self.port}"

    def set(self, name: str, rdtype: str, texts: list[str], ttl: int = 60) -> None:
        """Replaces the records of a name and type. Texts are in zone-file form; an empty list makes the name known without records.

        The name "*" is the default for any name that was not set. Raises dns.exception.DNSException for texts that are no such record.
        """
        if texts:
            dns.rrset.from_text_list("check.invalid.", ttl, "IN", rdtype, texts)
        self._records.setdefault(_key(name), {})[rdtype.upper()] = _Records(ttl, tuple(texts))

    def remove(self, name: str) -> None:
        """Forgets a name's records and fault."""
        self._records.pop(_key(name), None)
        self._faults.pop(_key(name), None)

    def fail(self, name: str, fault: Fault) -> None:
        """Answers every question about the name with a fault: an error code, silence (TIMEOUT), or, over UDP alone, TC=1 (TRUNCATED)."""
        self._faults[_key(name)] = fault

    async def __aenter__(self) -> "DnsServer":
        for attempt in range(_BIND_ATTEMPTS):
            self._tcp = await asyncio.start_server(self._serve_tcp, self.address, self.port)
            port = int(self._tcp.sockets[0].getsockname()[1])
            try:
                loop = asyncio.get_running_loop()
                self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(self.address, port))
            except OSError:
                self._tcp.close()
                if self.port or attempt == _BIND_ATTEMPTS - 1:
                    raise
            else:
                self.port = port
                return self
        raise AssertionError("the last attempt returns or raises")

    async def __aexit__(self, *_: object) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for writer in self._writers:
            writer.transport.abort()
        while self._writers:  # each session sees its end at one of the next turns of the loop
            await asyncio.sleep(0)

    def answer(self, wire: bytes, transport: Literal["udp", "tcp"]) -> bytes | None:
        """The response to a question in wire format; None for silence."""
        try:
            request = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if not request.question:
            return None
        question = request.question[0]
        name, rdtype = _key(question.name.to_text()), dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(name, rdtype, transport))
        response = dns.message.make_response(request, recursion_available=True)
        if self.authentic and not any(f".{name}".endswith(f".{_key(zone)}") for zone in self.insecure):
            response.flags |= dns.flags.AD
        fault = self._faults.get(name)
        if fault == "TIMEOUT":
            return None
        if fault == "TRUNCATED" and transport == "udp":
            response.flags |= dns.flags.TC
        elif fault is not None and fault != "TRUNCATED":
            response.set_rcode(dns.rcode.from_text(fault))
        else:
            self._fill(response, name, rdtype)
        try:
            return response.to_wire(max_size=65535 if transport == "tcp" else max(512, request.payload))
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, rdtype: str) -> None:
        for _ in range(8):  # the longest chain of CNAMEs that is followed; also what ends a loop of them
            known = self._records.get(name)
            default = self._records.get(_DEFAULT, {})
            if known is None and not default:
                response.set_rcode(dns.rcode.NXDOMAIN)
                return
            types = known if known is not None else default
            found = types.get(rdtype)
            alias = types.get("CNAME") if found is None and rdtype != "CNAME" else None
            records, kind = (alias, "CNAME") if alias is not None else (found, rdtype)
            if records is not None and records.texts:
                response.answer.append(dns.rrset.from_text_list(dns.name.from_text(name), records.ttl, "IN", kind, list(records.texts)))
            if alias is None:
                return
            name = _key(alias.texts[0])

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    response = self.answer(await reader.readexactly(length), "tcp")
                    if response is not None:
                        writer.write(struct.pack("!H", len(response)) + response)
                        await writer.drain()
        finally:
            writer.close()
            self._writers.discard(writer)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own is no subclass of it on Python 3.11

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        response = self._server.answer(data, "udp")
        if response is not None and self._transport is not None:
            self._transport.sendto(response, address)


def _key(name: str) -> str:
    return name.lower().rstrip(".") or "."
