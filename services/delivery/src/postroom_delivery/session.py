"""One SMTP connection to a peer: connect, greeting, EHLO, STARTTLS, AUTH, and commands with their replies. I/O only; it decides nothing.

If a reply does not come, is no reply, or the caller is cancelled while one is outstanding, the connection is of no further use: a late reply
would be paired with the next command.
"""

import asyncio
import base64
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from postroom_core.connection import Connection, ConnectionClosed, LineTooLong, connect
from postroom_core.reply import Reply
from postroom_delivery.dialogue import REPLY_LINE, REPLY_LINES, Extensions, ProtocolError, assemble, command, parse_ehlo, parse_line
from postroom_delivery.security import Demand


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds; each bounds a whole reply, so that a peer who sends an octet a second gains nothing (A19).

    RFC 5321 section 4.5.3.2, but the greeting: hosts that accept and then say nothing for minutes are dead in practice, and other hosts wait.
    """

    connect: float = 30.0
    greeting: float = 60.0
    command: float = 300.0
    data: float = 120.0
    block: float = 180.0
    final: float = 600.0
    tls: float = 30.0
    quit: float = 2.0  # the answer changes nothing


BROKEN = (OSError, ConnectionClosed, LineTooLong, ProtocolError, TimeoutError)


class TlsFailed(Exception):
    """STARTTLS was accepted and the handshake failed; the connection is gone."""


@dataclass(frozen=True, slots=True)
class Host:
    """A vetted address to dial and the name it came from."""

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}[{self.address}]:{self.port}"


# Says why a server's chain is not good enough, "" when it is.
Judge = Callable[[Sequence[bytes]], str]


def peer_chain(tls: ssl.SSLObject | None) -> list[bytes]:
    """The certificates that the server presented, DER, leaf first, unverified.

    Python has a public way from 3.13 on; before, the private one that the public one wraps. Where neither is, only the leaf is seen, and a DANE-TA
    record then matches nothing: the message waits, it is never sent with less.
    """
    if tls is None:
        return []
    if (public := getattr(tls, "get_unverified_chain", None)) is not None:
        return [bytes(der) for der in public()]
    if (private := getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", None)) is not None:
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in private() or ()]
    leaf = tls.getpeercert(binary_form=True)
    return [leaf] if leaf is not None else []


class Session:
    """Create by `open`. Raises one of BROKEN from every method when the connection ends."""

    def __init__(self, host: Host, connection: Connection, deadlines: Deadlines) -> None:
        self.host = host
        self.connection = connection
        self.deadlines = deadlines
        self.extensions = Extensions({})
        self.messages = 0
        self.demand = Demand.NORMAL  # what the session was opened for
        self.security = ""  # in plain words, for events
        self._outstanding = 0

    def __repr__(self) -> str:
        return f"Session({self.host}, {'tls' if self.connection.tls else 'clear'}, messages={self.messages}, usable={self.usable})"

    @property
    def in_order(self) -> bool:
        """Whether the peer listens. What has come unasked is a farewell (421 and the end of the connection) or nonsense: both outdate the session."""
        return not self.connection.closed and self._outstanding == 0 and not self.connection.buffered

    @property
    def usable(self) -> bool:
        """Whether another message may be sent here."""
        return self.in_order and self.messages < self.extensions.limit("MAILMAX")

    @classmethod
    async def open(cls, host: Host, deadlines: Deadlines, context: ssl.SSLContext | None = None) -> "Session":
        """Connects; `context` makes it TLS from the first octet (implicit TLS). The greeting is still to be read."""
        async with asyncio.timeout(deadlines.connect):
            return cls(host, await connect(host.address, host.port, context=context, hostname=host.name), deadlines)

    async def reply(self, seconds: float) -> Reply:
        """The next reply, bounded in time, lines and octets."""
        self._outstanding = max(1, self._outstanding)
        lines: list[tuple[int, bool, str]] = []
        if (reply := self._whole(lines)) is None:
            async with asyncio.timeout(seconds):
                while reply is None:
                    lines.append(parse_line(await self.connection.line(REPLY_LINE)))
                    reply = self._whole(lines)
        self._outstanding -= 1
        return reply

    def _whole(self, lines: list[tuple[int, bool, str]]) -> Reply | None:
        """The reply that begins with `lines`, as soon as its last line has arrived; what has arrived is taken without waiting."""
        while not lines or lines[-1][1]:
            if len(lines) >= REPLY_LINES:
                raise ProtocolError("a reply without end")
            line = self.connection.line_now(REPLY_LINE)
            if line is None:
                return None
            lines.append(parse_line(line))
        return assemble(lines)

    def send(self, data: bytes, replies: int = 1) -> None:
        """Queues commands whose `replies` will be read in order."""
        self._outstanding += replies
        self.connection.write(data)

    async def ask(self, text: str, seconds: float | None = None) -> Reply:
        """One command and its reply; `seconds` None is the deadline of commands."""
        self.send(command(text))
        return await self.reply(self.deadlines.command if seconds is None else seconds)

    async def hello(self, own_name: str) -> Reply:
        """EHLO, or HELO where EHLO is unknown (RFC 5321 section 3.2); sets `extensions`."""
        reply = await self.ask(f"EHLO {own_name}")
        if reply.kind == 5:
            self.extensions = Extensions({})
            return await self.ask(f"HELO {own_name}")
        self.extensions = parse_ehlo(reply) if reply.kind == 2 else Extensions({})
        return reply

    async def start_tls(self, context: ssl.SSLContext, own_name: str, server_name: str, judge: Judge) -> Reply:
        """STARTTLS, the handshake with `server_name` as SNI, a new EHLO (RFC 3207 section 4.2). A refusal is returned as it is. Raises TlsFailed.

        `judge` sees the server's chain (DER, leaf first) and says why it is not good enough, "" when it is.
        With TLS 1.3 the client's handshake ends before the server has judged it, so a connection that ends before EHLO is answered is a failed one.
        """
        reply = await self.ask("STARTTLS")
        if reply.kind != 2:
            return reply
        if self.connection.buffered:  # response injection, CVE-2021-38371
            self.abort()
            raise TlsFailed("data in clear behind the answer to STARTTLS")
        try:
            await self.connection.start_tls(context, server_side=False, hostname=server_name, handshake_seconds=self.deadlines.tls)
            if reason := judge(peer_chain(self.connection.tls)):
                self.abort()
                raise TlsFailed(reason)
            return await self.hello(own_name)
        except (OSError, ConnectionClosed, ValueError) as error:  # ValueError: an MX name that cannot be a server name
            self.abort()
            reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)
            raise TlsFailed(reason or "the connection was closed") from error

    async def login(self, username: str, password: str) -> Reply:
        """AUTH PLAIN (RFC 4616). The caller makes sure that the connection is TLS."""
        token = base64.b64encode(f"\0{username}\0{password}".encode()).decode()
        return await self.ask(f"AUTH PLAIN {token}")

    async def drain(self) -> None:
        """Waits until the peer takes what was queued."""
        if self.connection.drained():
            return
        async with asyncio.timeout(self.deadlines.block):
            await self.connection.drain()

    async def quit(self) -> None:
        """Says goodbye when the dialogue is in order, and closes in any case."""
        try:
            if self.in_order:
                await self.ask("QUIT", self.deadlines.quit)
        except BROKEN:
            pass
        finally:
            self.connection.close()

    def abort(self) -> None:
        """Closes without a word."""
        self.connection.abort()
