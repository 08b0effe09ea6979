"""One connection to the Sink: reads commands, asks the script, replies, notes what the client does wrong."""

import asyncio
import dataclasses
import re
import ssl
from collections.abc import Awaitable, Callable

from postroom_core.connection import Connection, ConnectionClosed, LineTooLong
from postroom_core.testing import content, faults

# RFC 5321 section 4.5.3.1.4, with what SIZE, 8BITMIME, SMTPUTF8 and DSN add to MAIL and RCPT (RFC 1870, 6152, 6531, 3461).
_COMMAND_LIMIT = {"MAIL": 512 + 26 + 17 + 10 + 107, "RCPT": 512 + 500}
_READ_LIMIT = 4096
# A client that is silent for so long has forgotten us (RFC 5321 section 4.5.3.2.7 asks for at least 5 minutes).
_IDLE_SECONDS = 300.0
_HANDSHAKE_SECONDS = 30.0
_MAX_RECIPIENTS = 1000
_FLUSH_AT = 16 * 1024
# Commands that must be the last of a pipelined group (RFC 2920 section 3.1).
_SYNCHRONISING = frozenset({"EHLO", "HELO", "DATA", "STARTTLS", "QUIT", "NOOP", "VRFY"})
_PATH = re.compile(r'^(FROM|TO):( ?)<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>(?: (.*))?$', re.IGNORECASE | re.DOTALL)
_BDAT = re.compile(r"^(\d{1,18})( LAST)?$", re.IGNORECASE)
_PARAMETER_NEEDS = {
    **{"BODY": "8BITMIME", "BODY=BINARYMIME": "BINARYMIME", "SIZE": "SIZE", "SMTPUTF8": "SMTPUTF8", "REQUIRETLS": "REQUIRETLS"},
    **{"RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN", "ORCPT": "DSN"},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """A message as it arrived. `content` has the dots removed; parameters have upper-case names; `tls` is protocol and cipher, "" in clear."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    peer: str
    tls: str
    mail_parameters: dict[str, str]
    rcpt_parameters: tuple[dict[str, str], ...]
    helo: str
    session: int
    number: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """What the sink announces."""

    extensions: tuple[str, ...]
    context: ssl.SSLContext | None

    @property
    def keywords(self) -> frozenset[str]:
        """The announced keywords in upper case, without their values."""
        return frozenset(name.split()[0].upper() for name in self.extensions)


@dataclasses.dataclass(slots=True)
class _Transaction:
    reverse_path: str
    parameters: dict[str, str]
    recipients: list[str] = dataclasses.field(default_factory=list)
    recipient_parameters: list[dict[str, str]] = dataclasses.field(default_factory=list)


class _Over(Exception):
    """The session ends now."""


async def _ignore(_: Received) -> None:
    return None


class Session:
    """`run` serves one client until it leaves. Replies to pipelined commands leave together."""

    def __init__(self, connection: Connection, number: int, offer: Offer, script: Callable[..., object], violation: Callable[[str], None]) -> None:
        self.number = number
        self.message = 1
        self.on_message: Callable[[Received], Awaitable[None]] = _ignore
        self._connection = connection
        self._offer = offer
        self._keywords = offer.keywords
        self._script = script
        self._violation = violation
        self._helo = ""
        self._transaction: _Transaction | None = None
        self._out = bytearray()
        self._chunks = bytearray()
        self._bdat_end = 0

    @property
    def accepted(self) -> int:
        """Recipients accepted in this transaction."""
        return len(self._transaction.recipients) if self._transaction else 0

    @property
    def secured(self) -> bool:
        """Whether the session is in TLS."""
        return self._connection.tls is not None

    async def run(self) -> None:
        """Serves until QUIT, a fault that ends the session, silence, or the client's end. Raises OSError when TLS breaks."""
        try:
            if self._connection.buffered:
                self._violation("spoke before the greeting")
            if await self._fault("CONNECT", "") is None:
                self._reply(b"220 sink.invalid ESMTP")
            await self._flush()
            while True:
                await self._step()
        except (_Over, ConnectionClosed, TimeoutError):
            return
        finally:
            self._connection.close()

    async def _step(self) -> None:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                line = await self._connection.line(_READ_LIMIT)
        except LineTooLong:
            self._violation("command line too long")
            self._reply(b"500 5.5.2 Line too long")
            await self._flush()
            return
        verb, argument = self._split(line)
        if await self._fault(verb, argument) is None:
            handler = getattr(self, f"_do_{verb.lower()}", None)
            if handler is None:
                self._reply(b"500 5.5.1 Unknown command")
            else:
                await handler(argument)
        elif verb in ("EHLO", "HELO", "RSET"):
            self._reset()
        if not self._connection.buffered or len(self._out) > _FLUSH_AT:
            await self._flush()

    def _split(self, line: bytes) -> tuple[str, str]:
        text = line.decode("utf-8", "surrogateescape")
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        if len(line) + 2 > _COMMAND_LIMIT.get(verb, 512):
            self._violation(f"{verb} line too long")
        if b"\n" in line or b"\r" in line:
            self._violation(f"bare CR or LF in {verb[:4]} line")
        if not line.isascii() and (self._transaction is None or "SMTPUTF8" not in self._transaction.parameters) and "SMTPUTF8" not in text.upper():
            self._violation("octets above 127 in a command without SMTPUTF8")
        followed = self._connection.buffered and verb != "BDAT"  # its octets follow at once
        if followed and "PIPELINING" not in self._keywords:
            self._violation(f"pipelined after {verb}, but PIPELINING was not offered")
        elif followed and verb in _SYNCHRONISING:
            self._violation(f"pipelined after {verb}, which must end a group")
        return (verb if verb.isalpha() and verb.isascii() else "?"), argument

    # Faults and replies

    async def _fault(self, verb: str, argument: str) -> faults.Action | None:
        action = self._script(self, verb, argument)
        while isinstance(action, faults.Wait):
            await self._flush()
            await action.event.wait()
            action = action.reply
        if action is not None:
            await self._act(action)
        return action  # type: ignore[return-value]

    async def _act(self, action: object) -> None:
        match action:
            case bytes():
                self._reply(action)
                await self._flush()
                if action.startswith(b"421"):
                    raise _Over
            case faults.Drop():
                await self._drop(action)
            case faults.Endless():
                await self._flush()
                while True:
                    self._connection.write(action.chunk)
                    await self._connection.drain()
                    await asyncio.sleep(0)
            case _:
                await self._hang(action)

    async def _drop(self, drop: faults.Drop) -> None:
        if drop.reply:
            self._reply(drop.reply)
        await self._flush()
        if drop.reset:
            self._connection.abort()
        raise _Over

    async def _hang(self, action: object) -> None:
        await self._flush()
        if isinstance(action, faults.GarbageTls):
            self._connection.write(action.octets)
        while True:
            await self._connection.block()

    def _reply(self, line: bytes) -> None:
        self._out += line if line.endswith(b"\r\n") else line + b"\r\n"

    async def _flush(self) -> None:
        if self._out:
            data = bytes(self._out)
            self._out.clear()
            self._connection.write(data)
            await self._connection.drain()

    def _reset(self) -> None:
        self._transaction = None
        self._chunks.clear()
        self._bdat_end = 0

    # Commands

    async def _do_ehlo(self, argument: str) -> None:
        self._helo = argument
        self._keywords = self._offer.keywords
        self._reset()
        names = ["sink.invalid", *self._offer.extensions]
        if self._offer.context is not None and not self.secured:
            names.append("STARTTLS")
        self._reply(b"\r\n".join(f"250{'-' if index < len(names) - 1 else ' '}{name}".encode() for index, name in enumerate(names)))

    async def _do_helo(self, argument: str) -> None:
        self._helo = argument
        self._keywords = frozenset()
        self._reset()
        self._reply(b"250 sink.invalid")

    async def _do_starttls(self, argument: str) -> None:
        if self._offer.context is None or self.secured or argument:
            self._reply(b"503 5.5.1 Not now")
            return
        self._reply(b"220 2.0.0 Go ahead")
        await self._flush()
        if await self._fault("TLS", "") is None:
            await self._connection.start_tls(self._offer.context, server_side=True, handshake_seconds=_HANDSHAKE_SECONDS)
        self._helo = ""
        self._reset()

    async def _do_mail(self, argument: str) -> None:
        if not self._helo or self._transaction is not None:
            self._violation("MAIL out of order")
            self._reply(b"503 5.5.1 Out of order")
            return
        parsed = self._path("FROM", argument)
        if parsed is None:
            self._reply(b"501 5.5.4 Syntax")
            return
        if int(parsed[1].get("SIZE") or 0) > self._size_limit:
            self._reply(b"552 5.3.4 Too big")
            return
        self._transaction = _Transaction(*parsed)
        self._reply(b"250 2.1.0 OK")

    async def _do_rcpt(self, argument: str) -> None:
        if self._transaction is None:
            self._reply(b"503 5.5.1 MAIL first")  # no violation: pipelined behind a refused MAIL this is regular
            return
        parsed = self._path("TO", argument)
        if parsed is None:
            self._reply(b"501 5.5.4 Syntax")
        elif self.accepted >= _MAX_RECIPIENTS:
            self._reply(b"452 4.5.3 Too many recipients")
        else:
            self._transaction.recipients.append(parsed[0])
            self._transaction.recipient_parameters.append(parsed[1])
            self._reply(b"250 2.1.5 OK")

    async def _do_data(self, argument: str) -> None:
        transaction = self._transaction
        if transaction is None or not transaction.recipients or argument:
            self._reply(b"503 5.5.1 No valid recipients")  # no violation: see RCPT
            return
        self._reply(b"354 Go ahead")
        await self._flush()
        if transaction.parameters.get("BODY", "").upper() == "BINARYMIME":
            self._violation("DATA for binary content")
        wire = await self._content()
        eight_bit = transaction.parameters.get("BODY", "").upper() == "8BITMIME"
        for text in content.violations(wire, eight_bit=eight_bit):
            self._violation(text)
        await self._at_the_dot(self._received(transaction, content.unstuff(wire)))

    async def _do_bdat(self, argument: str) -> None:
        match = _BDAT.match(argument)
        if match is None or "CHUNKING" not in self._keywords:
            self._violation(f"BDAT {argument!r}")
            self._reply(b"501 5.5.4 Syntax")
            return
        await self._flush()
        while len(self._chunks) < self._bdat_end + int(match[1]):
            async with asyncio.timeout(_IDLE_SECONDS):
                self._chunks += await self._connection.block()
        self._bdat_end += int(match[1])
        self._connection.unread(bytes(self._chunks[self._bdat_end :]))
        del self._chunks[self._bdat_end :]
        transaction = self._transaction
        if transaction is None or not transaction.recipients:
            self._reset()
            self._reply(b"503 5.5.1 No valid recipients")
        elif match[2]:
            await self._at_the_dot(self._received(transaction, bytes(self._chunks)))
        else:
            self._reply(b"250 2.0.0 OK")

    def _received(self, transaction: _Transaction, octets: bytes) -> Received:
        return Received(
            reverse_path=transaction.reverse_path,
            recipients=tuple(transaction.recipients),
            content=octets,
            peer=self._connection.peer,
            tls=self._connection.tls_text,
            mail_parameters=transaction.parameters,
            rcpt_parameters=tuple(transaction.recipient_parameters),
            helo=self._helo,
            session=self.number,
        )

    async def _at_the_dot(self, received: Received) -> None:
        action = self._script(self, ".", "")
        while isinstance(action, faults.Wait):
            await action.event.wait()
            action = action.reply
        reply = action.reply if isinstance(action, faults.Drop) else action
        if action is None or (isinstance(reply, bytes) and reply.startswith(b"2")):
            await self.on_message(received)
        self._reset()
        self.message += 1
        if action is None:
            self._reply(b"250 2.0.0 OK")
        else:
            await self._act(action)

    async def _content(self) -> bytes:
        wire = bytearray(b"\r\n")  # the CRLF of the DATA line: then the first line is like any other
        while True:
            start = max(0, len(wire) - len(content.END) + 1)
            async with asyncio.timeout(_IDLE_SECONDS):
                wire += await self._connection.block()
            end = wire.find(content.END, start)
            if end >= 0:
                self._connection.unread(bytes(wire[end + len(content.END) :]))
                del wire[end + 2 :]
                return bytes(wire)

    async def _do_rset(self, argument: str) -> None:
        self._reset()
        self._reply(b"250 2.0.0 OK")

    async def _do_noop(self, argument: str) -> None:
        self._reply(b"250 2.0.0 OK")

    async def _do_vrfy(self, argument: str) -> None:
        self._reply(b"252 2.1.5 Cannot say")

    async def _do_quit(self, argument: str) -> None:
        self._reply(b"221 2.0.0 Bye")
        await self._flush()
        raise _Over

    # Parsing

    @property
    def _size_limit(self) -> int:
        for name in self._offer.extensions:
            keyword, _, value = name.partition(" ")
            if keyword.upper() == "SIZE" and value.isdigit() and int(value):
                return int(value)
        return 1 << 62

    def _path(self, keyword: str, argument: str) -> tuple[str, dict[str, str]] | None:
        match = _PATH.match(argument)
        if match is None or match[1].upper() != keyword:
            self._violation(f"{keyword}: no path in {argument!r}")
            return None
        if match[2]:
            self._violation(f"space after {keyword}:")
        parameters = {}
        for part in (match[4] or "").split(" ") if match[4] else ():
            name, _, value = part.partition("=")
            parameters[name.upper()] = value
            needed = _PARAMETER_NEEDS.get(part.upper()) or _PARAMETER_NEEDS.get(name.upper())
            if needed is None or needed not in self._keywords:
                self._violation(f"parameter {name} was not offered")
        return match[3], parameters
