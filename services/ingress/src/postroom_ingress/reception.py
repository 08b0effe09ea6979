"""Reception of one message: the first station of its path, **reception** → scheduler → attempt → settle.

The steps, while the content streams by:
1. The header block is gathered (bounded), parsed and checked; From must belong to the sender; hops are counted; the block is stamped.
2. The body is hashed for DKIM and passed to the spool in chunks as it arrives. A small message is one chunk with everything.
3. At the end of the content the signer signs the stamped header block, and the last chunk asks the spool to commit.
4. Only the spool's `accepted` becomes 250. From the final dot on, this does not depend on the client's connection any more.

A fault that the client causes is 5xx and leaves nothing in the spool; a fault of ours is 4xx. Never: a copy of the body, a file, an unsigned message
of a signed domain, a text of an exception in a reply.
"""

import asyncio
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Histogram

from postroom_core.clock import Clock
from postroom_core.connection import Connection, ConnectionClosed
from postroom_core.errors import Unavailable
from postroom_core.headers import Field, MalformedHeader, check, parse
from postroom_core.lifecycle import finish
from postroom_core.reply import Reply
from postroom_ingress import policy, stamp
from postroom_ingress.bodyhash import RelaxedBodyHash
from postroom_ingress.clients import Refusal, Refused, SignerClient, SpoolClient, Upload
from postroom_ingress.data import DataReader
from postroom_ingress.envelope import Envelope
from postroom_ingress.policy import Identity
from postroom_ingress.stamp import Trace

log = structlog.get_logger(__name__)
MESSAGES = Counter("postroom_ingress_messages", "Messages by the first digit of the reply", ["outcome"])
OCTETS = Counter("postroom_ingress_octets", "Octets of accepted messages")
HAND_OVER = Histogram(
    "postroom_ingress_hand_over_seconds", "From the final dot to the reply", buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)
)

CHUNK = 64 * 1024
# Postfix takes 100 KiB; long To lists and ARC chains need more, nobody needs a MiB. It stays below a gRPC message.
MOST_HEADER = 256 * 1024
# RFC 5321 section 6.3 asks for at least 100 to be bearable, in practice a message with 50 hops loops.
MOST_HOPS = 50
BLOCK_SECONDS = 180.0  # RFC 5321 section 4.5.3.2.5
CONTENT_SECONDS = 3600.0  # 64 MiB at 150 kbit/s; nothing useful is slower
# Octets per second on average once a minute has passed: a slower sender only holds a connection.
LEAST_RATE = 256
GRACE_SECONDS = 60.0

AWAY = Reply(451, "4.3.0", "The message was not accepted because of a temporary fault, try again later")
HEADER_TOO_LARGE = Reply(554, "5.6.0", f"The header is larger than {MOST_HEADER} octets")
LOOP = Reply(554, "5.4.6", f"The message has passed {MOST_HOPS} hosts, it loops")


@dataclass(frozen=True, slots=True)
class Services:
    """What reception needs of the world."""

    signer: SignerClient
    spool: SpoolClient
    clock: Clock


@dataclass(frozen=True, slots=True)
class Order:
    """One message to receive. `submission` allows to add and remove fields."""

    envelope: Envelope
    identity: Identity
    trace: Trace
    size_limit: int
    submission: bool


class Reception:
    """One message; use once."""

    def __init__(self, order: Order, services: Services) -> None:
        self._order = order
        self._services = services
        self._reader = DataReader(order.size_limit)
        self._hash = RelaxedBodyHash()
        self._head: bytearray | None = bytearray()  # None once the header block is complete
        self._header_block = b""
        self._eight_bit_header = False
        self._pending = bytearray()
        self._body_size = 0
        self._upload: Upload | None = None
        self._fault: Reply | None = None

    async def run(self, connection: Connection) -> Reply:
        """Reads the content to its end and answers it. Raises ConnectionClosed and TimeoutError of a client that does not get there."""
        try:
            await self._read(connection)
        except BaseException:
            self._cancel()
            raise
        reply = await finish(self._end())
        MESSAGES.labels(f"{reply.kind}xx").inc()
        return reply

    async def _read(self, connection: Connection) -> None:
        clock = self._services.clock
        began, octets = clock.monotonic(), 0
        async with asyncio.timeout(CONTENT_SECONDS):
            while not self._reader.ended:
                async with asyncio.timeout(BLOCK_SECONDS):
                    data = await connection.block()
                octets += len(data)
                elapsed = clock.monotonic() - began
                if elapsed > GRACE_SECONDS and octets / elapsed < LEAST_RATE:
                    raise ConnectionClosed
                content = self._reader.feed(data)
                if self._reader.fault is not None or self._fault is not None:
                    self._cancel()
                elif content:
                    await self._content(content)
        connection.unread(self._reader.rest)

    def _cancel(self) -> None:
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None
        self._pending.clear()

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
        try:
            fields = parse(block)
            self._fault = _hops(fields)
            check(fields)
        except MalformedHeader as error:
            self._fault = Reply(554, "5.6.0", str(error))
        else:
            self._fault = self._fault or policy.check_from(order.identity, fields)
            self._header_block = stamp.header_block(fields, order.trace, submission=order.submission)
            self._eight_bit_header = not block.isascii()

    async def _body(self, content: bytes) -> None:
        self._hash.feed(content)
        self._body_size += len(content)
        self._pending += content
        while len(self._pending) > CHUNK:
            chunk = bytes(self._pending[:CHUNK])
            del self._pending[:CHUNK]
            try:
                self._upload = self._upload or self._services.spool.upload(self._order.envelope)
                await self._upload.body(chunk)
            except Unavailable as error:
                self._unavailable(error)
                return

    def _unavailable(self, error: Unavailable) -> None:
        log.warning("message not accepted", message_id=self._order.envelope.message_id, reason=str(error))
        self._fault = AWAY
        self._cancel()

    # The end

    async def _end(self) -> Reply:
        if self._head is not None and self._reader.fault is None and self._fault is None:
            self._gate(bytes(self._head))  # a message without a blank line is all header
        fault = self._reader.fault or self._fault
        if fault is not None:
            self._cancel()
            return fault
        with HAND_OVER.time():
            try:
                return await self._hand_over()
            except Unavailable as error:
                self._unavailable(error)
                return AWAY

    async def _hand_over(self) -> Reply:
        envelope = self._order.envelope
        signatures: bytes | Refused = b""
        if self._order.identity.domain.signed:
            signatures = await self._services.signer.sign(envelope, self._header_block, self._hash.digest(), envelope.received_at // 1000)
        if isinstance(signatures, Refused):
            self._cancel()
            return _refusal(signatures)
        upload = self._upload or self._services.spool.upload(envelope)
        eight_bit = self._eight_bit_header or self._reader.eight_bit
        refused = await upload.end(bytes(self._pending), signatures + self._header_block, self._body_size, eight_bit=eight_bit)
        if refused is not None:
            return refused
        OCTETS.inc(self._reader.size)
        return Reply(250, "2.0.0", f"Ok: queued as {envelope.message_id}")


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
