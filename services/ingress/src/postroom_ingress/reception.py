"""Reception of one message: the first station of its path, **reception** → scheduler → attempt → settle.

The content comes by DATA in one piece or by BDAT in chunks, each with a reply of its own. The steps, while it streams by:
1. The header block is gathered (bounded), parsed and checked; From must belong to the sender; hops are counted; the block is stamped.
2. The body is hashed for DKIM and passed to the spool in chunks as it arrives. A small message is one chunk with everything.
3. At the end of the content (the final dot, or BDAT LAST) the signer signs the stamped header block, and the last chunk asks the spool to commit.
4. Only the spool's `accepted` becomes 250. From the end on, this does not depend on the client's connection any more.

A fault that the client causes is 5xx and leaves nothing in the spool; a fault of ours is 4xx. Never: a copy of the body, a file, an unsigned message
of a signed domain, a text of an exception in a reply.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace

import structlog
from prometheus_client import Counter, Histogram

from postroom_core.bodyhash import RelaxedBodyHash
from postroom_core.clock import Clock
from postroom_core.connection import Connection
from postroom_core.errors import Unavailable
from postroom_core.headers import Field, MalformedHeader, check, parse
from postroom_core.lifecycle import finish
from postroom_core.reply import Reply
from postroom_ingress import policy, stamp
from postroom_ingress.chunks import ChunkReader
from postroom_ingress.clients import Deliveries, Refusal, Refused, SignerClient, Upload
from postroom_ingress.data import DataReader
from postroom_ingress.deadlines import DEFAULT, Deadlines
from postroom_ingress.envelope import Envelope
from postroom_ingress.mime import DEEPEST, NestingMeter
from postroom_ingress.options import MailOptions
from postroom_ingress.policy import Identity
from postroom_ingress.repair import Repairer, RepairingReader
from postroom_ingress.stamp import Trace

log = structlog.get_logger(__name__)
MESSAGES = Counter("postroom_ingress_messages", "Messages by the first digit of the reply", ["outcome"])
OCTETS = Counter("postroom_ingress_octets", "Octets of accepted messages")
HAND_OVER = Histogram(
    "postroom_ingress_hand_over_seconds", "From the final dot to the reply", buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)
)

# What delivery reads of a report; the returned message behind it says nothing more.
MOST_REPORT = 512 * 1024
CHUNK = 64 * 1024
# Postfix takes 100 KiB; long To lists and ARC chains need more, nobody needs a MiB. It stays below a gRPC message.
MOST_HEADER = 256 * 1024
# A message with fifty hops and as many ARC sets has some 300.
MOST_FIELDS = 1000
# RFC 5321 section 6.3 asks for at least 100 to be bearable, in practice a message with 50 hops loops.
MOST_HOPS = 50

AWAY = Reply(451, "4.3.0", "The message was not accepted because of a temporary fault, try again later")
HEADER_TOO_LARGE = Reply(554, "5.6.0", f"The header is larger than {MOST_HEADER} octets")
TOO_MANY_FIELDS = Reply(554, "5.6.0", f"The header has more than {MOST_FIELDS} fields")
TOO_DEEP = Reply(554, "5.6.0", f"The parts of the message are nested deeper than {DEEPEST}")
LOOP = Reply(554, "5.4.6", f"The message has passed {MOST_HOPS} hosts, it loops")


@dataclass(frozen=True, slots=True)
class Services:
    """What reception needs of the world."""

    signer: SignerClient
    spool: Deliveries
    clock: Clock
    deadlines: Deadlines = DEFAULT


@dataclass(frozen=True, slots=True)
class Order:
    """One message to receive. `submission` allows to add and remove fields; `chunks`: it comes by BDAT; `report`: it is about mail of ours.

    With `repair` bare CR and LF become CRLF.
    """

    envelope: Envelope
    identity: Identity
    trace: Trace
    size_limit: int
    submission: bool
    chunks: bool = False
    report: bool = False
    repair: bool = False


class Pace:
    """Reads blocks of content from a client that must keep a least rate. Raises TimeoutError of one that does not, ConnectionClosed."""

    def __init__(self, connection: Connection, services: Services) -> None:
        self._connection = connection
        self._clock = services.clock
        self._deadlines = services.deadlines
        self._began = self._clock.monotonic()
        self._octets = 0

    async def block(self, most: int | None = None) -> bytes:
        async with asyncio.timeout(self._deadlines.block):
            data = await self._connection.block(most)
        self._octets += len(data)
        elapsed = self._clock.monotonic() - self._began
        if elapsed > self._deadlines.grace and self._octets / elapsed < self._deadlines.least_rate:
            raise TimeoutError
        return data

    async def discard(self, size: int) -> None:
        """Reads `size` octets for nobody."""
        async with asyncio.timeout(self._deadlines.content):
            while size:
                size -= len(await self.block(size))


class Reception:
    """One message; use once: `data`, or `chunk` until the last or the first that is refused. `abandon` when it will not be finished."""

    def __init__(self, order: Order, services: Services) -> None:
        self._order = order
        self._services = services
        self._reader = _reader(order)
        self._hash = RelaxedBodyHash()
        self._nesting = NestingMeter()
        self._envelope = order.envelope
        self._head: bytearray | None = bytearray()  # None once the header block is complete
        self._header_block = b""
        self._eight_bit_header = False
        self._pending = bytearray()
        self._body_size = 0
        self._upload: Upload | None = None
        self._fault: Reply | None = None

    @property
    def message_id(self) -> str:
        return self._envelope.message_id

    async def data(self, connection: Connection) -> Reply:
        """Reads the content to its final dot and answers it. Raises ConnectionClosed and TimeoutError of a client that does not get there."""
        assert isinstance(self._reader, DataReader | RepairingReader)
        await self._or_abandon(self._read(self._reader, connection))
        return await self._answer()

    async def chunk(self, connection: Connection, size: int, *, last: bool) -> Reply:
        """Reads one chunk to its end and answers it. Raises as `data`. After a reply that is not 2xx nothing of the message is left."""
        await self._or_abandon(self._read_chunk(connection, size))
        if last:
            return await self._answer()
        fault = self._reader.fault or self._fault
        if fault is not None:
            MESSAGES.labels(f"{fault.kind}xx").inc()
        return fault or Reply(250, "2.0.0", f"{size} octets received")

    async def take(self, content: bytes) -> Reply | None:
        """The next octets of a message that comes as a whole (HTTP); the fault that it has so far. An order for `chunks` only."""
        await self._or_abandon(self._take(self._reader.feed(content)))
        return self._reader.fault or self._fault

    async def end(self) -> Reply:
        """Answers what was taken."""
        return await self._answer()

    def abandon(self) -> None:
        """Leaves nothing of the message in the spool. Idempotent."""
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None
        self._pending.clear()

    async def _or_abandon(self, work: Awaitable[None]) -> None:
        try:
            await work
        except BaseException:
            self.abandon()
            raise

    async def _answer(self) -> Reply:
        reply = await finish(self._end())
        MESSAGES.labels(f"{reply.kind}xx").inc()
        return reply

    async def _read(self, reader: DataReader | RepairingReader, connection: Connection) -> None:
        pace = Pace(connection, self._services)
        async with asyncio.timeout(self._services.deadlines.content):
            while not reader.ended:
                await self._take(reader.feed(await pace.block()))
        connection.unread(reader.rest)

    async def _read_chunk(self, connection: Connection, size: int) -> None:
        pace = Pace(connection, self._services)
        async with asyncio.timeout(self._services.deadlines.content):
            while size:
                data = await pace.block(min(size, CHUNK))
                size -= len(data)
                await self._take(self._reader.feed(data))

    async def _take(self, content: bytes) -> None:
        if self._reader.fault is not None or self._fault is not None:
            self.abandon()
        elif content:
            await self._content(content)

    # Content

    async def _content(self, content: bytes) -> None:
        if self._head is not None:
            self._head += content
            body = self._split_header()
            if body is None:
                return
            content = body
        await self._body(content)

    def _split_header(self) -> bytes | None:
        """Completes the header block if its blank line has come; the octets behind it, None while it has not or when the gate refuses."""
        assert self._head is not None
        if self._head.startswith(b"\r\n"):
            block, body = b"", bytes(self._head[2:])
        else:
            end = self._head.find(b"\r\n\r\n")
            if end < 0 or end > MOST_HEADER:
                self._fault = HEADER_TOO_LARGE if len(self._head) > MOST_HEADER else None
                return None
            block, body = bytes(self._head[: end + 2]), bytes(self._head[end + 4 :])
        self._gate(block)
        return body if self._fault is None else None

    def _gate(self, block: bytes) -> None:
        self._head = None
        order = self._order
        if order.report:  # read by delivery as it is; who wrote it is of no weight
            self._header_block = block
            return
        try:
            fields = parse(block)
            self._fault = TOO_MANY_FIELDS if len(fields) > MOST_FIELDS else _hops(fields)
            check(fields)
        except MalformedHeader as error:
            self._fault = Reply(554, "5.6.0", str(error))
        else:
            self._fault = self._fault or policy.check_from(order.identity, fields, utf8=order.trace.utf8)
            self._header_block = stamp.header_block(fields, order.trace, submission=order.submission)
            self._eight_bit_header = not block.isascii()
            self._nesting.start(next((field.value for field in fields if field.key == b"content-type"), b""))
            self._envelope = replace(order.envelope, options=self._options(fields))

    def _options(self, fields: tuple[Field, ...]) -> MailOptions:
        """SMTPUTF8 is demanded of the next hop only where an address or a field needs it (RFC 6531 section 3.4)."""
        options = self._order.envelope.options
        needs_utf8 = self._order.trace.utf8 and not (self._order.envelope.ascii and self._header_block.isascii())
        tls_optional = not options.require_tls and any(f.key == b"tls-required" and f.value.lower() == b"no" for f in fields)  # RFC 8689 section 5
        return replace(options, smtputf8=needs_utf8, tls_optional=tls_optional)

    async def _body(self, content: bytes) -> None:
        self._hash.feed(content)
        self._nesting.feed(content)
        if self._nesting.too_deep:
            self._fault = TOO_DEEP
            self.abandon()
            return
        self._body_size += len(content)
        self._pending += content
        if self._order.report:
            del self._pending[MOST_REPORT:]
            return
        while len(self._pending) > CHUNK:
            chunk = bytes(self._pending[:CHUNK])
            del self._pending[:CHUNK]
            try:
                self._upload = self._upload or self._services.spool.upload(self._envelope, self._order.identity.domain.delivery_target)
                await self._upload.body(chunk)
            except Unavailable as error:
                self._unavailable(error)
                return

    def _unavailable(self, error: Unavailable) -> None:
        log.warning("message not accepted", message_id=self._order.envelope.message_id, reason=str(error))
        self._fault = AWAY
        self.abandon()

    # The end

    async def _end(self) -> Reply:
        if not isinstance(self._reader, DataReader):
            await self._take(self._reader.finish())
        if self._head is not None and self._reader.fault is None and self._fault is None:
            self._gate(bytes(self._head))  # a message without a blank line is all header
        fault = self._reader.fault or self._fault
        if fault is not None:
            self.abandon()
            return fault
        with HAND_OVER.time():
            try:
                return await self._hand_over()
            except Unavailable as error:
                self._unavailable(error)
                return AWAY

    async def _hand_over(self) -> Reply:
        envelope = self._envelope
        if self._order.report:
            content = self._header_block + b"\r\n" + bytes(self._pending)
            (return_path,) = (str(rcpt.recipient) for rcpt in envelope.recipients)
            await self._services.spool.report(content[:MOST_REPORT], return_path, self._order.identity.domain.delivery_target)
            return Reply(250, "2.0.0", "Ok: the report was read")
        signatures: bytes | Refused = b""
        if self._order.identity.domain.signed:
            signatures = await self._services.signer.sign(envelope, self._header_block, self._hash.digest(), envelope.received_at // 1000)
        if isinstance(signatures, Refused):
            self.abandon()
            return _refusal(signatures)
        upload = self._upload or self._services.spool.upload(envelope, self._order.identity.domain.delivery_target)
        eight_bit = self._eight_bit_header or self._reader.eight_bit
        refused = await upload.end(bytes(self._pending), signatures + self._header_block, self._body_size, eight_bit=eight_bit)
        if refused is not None:
            return refused
        OCTETS.inc(self._reader.size)
        return Reply(250, "2.0.0", f"Ok: queued as {envelope.message_id}")


def _reader(order: Order) -> DataReader | ChunkReader | Repairer:
    binary = order.envelope.options.binary
    if order.repair and not binary:
        return Repairer(order.size_limit) if order.chunks else RepairingReader(order.size_limit)
    return ChunkReader(order.size_limit, binary=binary) if order.chunks else DataReader(order.size_limit)


def _hops(fields: tuple[Field, ...]) -> Reply | None:
    return LOOP if sum(field.key == b"received" for field in fields) >= MOST_HOPS else None


def _refusal(refused: Refused) -> Reply:
    match refused.reason:
        case Refusal.NO_KEY:
            return Reply(451, "4.7.0", refused.text)
        case Refusal.NOT_OWNER:
            return Reply(550, "5.7.1", refused.text)
        case Refusal.MALFORMED:
            return Reply(554, "5.6.0", refused.text)
