"""gRPC clients of ingress: the signer and the spool. Wire in, domain out; every call has a deadline; every fault becomes Unavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
from grpc import aio

from postroom.v1 import queue_pb2, queue_pb2_grpc, signer_pb2, signer_pb2_grpc, spool_pb2, spool_pb2_grpc, suppression_pb2, suppression_pb2_grpc
from postroom_core.clock import Clock
from postroom_core.errors import Unavailable
from postroom_core.reply import Reply
from postroom_core.rpc import is_serving
from postroom_core.suppression import Filter
from postroom_ingress.batcher import Batcher, Bounds
from postroom_ingress.envelope import Envelope
from postroom_ingress.options import MailOptions
from postroom_ingress.suppression import AWAY, FORGED, SuppressionList

# A signature takes a millisecond; whoever waits longer for it hears 451 and comes back.
SIGN_SECONDS = 5.0
# From the end of the message to its commit: a disk that takes longer is down for a mail client that waits.
COMMIT_SECONDS = 30.0
# One indexed look; a client waits for its RCPT.
LOOKUP_SECONDS = 5.0
# The whole of an upload: the longest session that DATA may have, see postroom_ingress.reception.
UPLOAD_SECONDS = 3600.0
# Two calls at once: while one is answered the other is on its way. 64 signatures take some 20 ms; half a MiB is half of what a gRPC message may have.
BOUNDS = Bounds(parallel=2, most=64, heaviest=512 * 1024)


class Refusal(Enum):
    """Why the signer signs nothing."""

    NO_KEY = "no-key"
    NOT_OWNER = "not-owner"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Refused:
    """The signer's refusal with a sentence for the client."""

    reason: Refusal
    text: str


_REFUSALS = {
    signer_pb2.Refusal.NO_KEY: Refusal.NO_KEY,
    signer_pb2.Refusal.NOT_OWNER: Refusal.NOT_OWNER,
    signer_pb2.Refusal.MALFORMED: Refusal.MALFORMED,
}


class SignerClient:
    """Signs header blocks; requests that wait at the same time share a call."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = signer_pb2_grpc.SignerStub(channel)
        self._batcher: Batcher[signer_pb2.SignRequest, signer_pb2.SignResponse] = Batcher(self._call, lambda request: request.ByteSize(), BOUNDS)

    async def sign(self, envelope: Envelope, header_block: bytes, body_sha256: bytes, now_seconds: int) -> bytes | Refused:
        """The DKIM-Signature fields. Raises Unavailable."""
        body_hash = signer_pb2.BodyHash(canonicalization=signer_pb2.CANONICALIZATION_RELAXED, sha256=body_sha256)
        request = signer_pb2.SignRequest(
            domain=envelope.domain, tenant=envelope.tenant, header_block=header_block, body_hashes=[body_hash], now_seconds=now_seconds
        )
        response = await self._batcher.ask(request)
        if response.HasField("signature"):
            return response.signature.header_fields
        reason = _REFUSALS.get(response.refusal.reason)
        if reason is None:
            raise Unavailable("signer: an answer without a signature")
        return Refused(reason, response.refusal.text)

    async def _call(self, requests: Sequence[signer_pb2.SignRequest]) -> Sequence[signer_pb2.SignResponse]:
        try:
            return (await self._stub.SignBatch(signer_pb2.SignBatchRequest(requests=requests), timeout=SIGN_SECONDS)).responses
        except grpc.RpcError as error:
            raise Unavailable(f"signer: {_code(error)}") from error


class Upload:
    """One message on its way to the spool: `body` any number of times, then `end` once, or `cancel`.

    A message that is whole at `end` shares a call with others; one that has sent chunks before has a stream of its own.
    """

    def __init__(self, client: SpoolClient, envelope: Envelope) -> None:
        self._client = client
        self._envelope = _wire(envelope)
        self._call: aio.StreamUnaryCall[spool_pb2.EnqueueChunk, spool_pb2.EnqueueResponse] | None = None

    async def body(self, chunk: bytes) -> None:
        """Sends a chunk of at most 64 KiB, waits while the spool is slower than the client. Raises Unavailable."""
        if self._call is None:
            self._call = self._client.stream()
            await self._write(self._call, spool_pb2.EnqueueChunk(envelope=self._envelope, body=chunk))
        else:
            await self._write(self._call, spool_pb2.EnqueueChunk(body=chunk))

    async def end(self, last: bytes, header_block: bytes, body_size: int, *, eight_bit: bool) -> Reply | None:
        """Commits; a reply when the spool refuses. Raises Unavailable."""
        end = spool_pb2.End(header_block=header_block, body_size=body_size, eight_bit=eight_bit)
        if self._call is None:
            response = await self._client.whole(spool_pb2.EnqueueChunk(envelope=self._envelope, body=last, end=end))
        else:
            response = await self._last(self._call, spool_pb2.EnqueueChunk(body=last, end=end))
        if response.HasField("refused"):
            return Reply(response.refused.code, response.refused.enhanced, response.refused.text)
        if not response.HasField("accepted"):
            raise Unavailable("spool: an answer without an outcome")
        return None

    def cancel(self) -> None:
        """Nothing of the message stays behind."""
        if self._call is not None:
            self._call.cancel()

    async def _last(
        self, call: aio.StreamUnaryCall[spool_pb2.EnqueueChunk, spool_pb2.EnqueueResponse], chunk: spool_pb2.EnqueueChunk
    ) -> spool_pb2.EnqueueResponse:
        await self._write(call, chunk)
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await call.done_writing()
                return await call
        except (grpc.RpcError, TimeoutError) as error:
            raise Unavailable(f"spool: {_code(error)}") from error

    async def _write(self, call: aio.StreamUnaryCall[spool_pb2.EnqueueChunk, spool_pb2.EnqueueResponse], chunk: spool_pb2.EnqueueChunk) -> None:
        try:
            await call.write(chunk)
        except asyncio.InvalidStateError:
            return  # the spool has already answered, a refusal: `end` reads it
        except (grpc.RpcError, aio.UsageError) as error:
            raise Unavailable(f"spool: {_code(error)}") from error


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """A recipient of a message in the spool; `due_at` in Unix milliseconds."""

    address: str
    state: str
    attempts: int
    due_at: int
    last_reply: str


@dataclass(frozen=True, slots=True)
class Status:
    """A message in the spool; times in Unix milliseconds."""

    message_id: str
    tenant: str
    domain: str
    credential: str
    envid: str
    reverse_path: str
    received_at: int
    expires_at: int
    recipients: tuple[RecipientStatus, ...]


class SpoolClient:
    """Hands messages over to one delivery, and asks what became of one."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = spool_pb2_grpc.SpoolStub(channel)
        self._queue = queue_pb2_grpc.QueueStub(channel)
        self._batcher: Batcher[spool_pb2.EnqueueChunk, spool_pb2.EnqueueResponse] = Batcher(self._call, lambda chunk: chunk.ByteSize(), BOUNDS)

    def upload(self, envelope: Envelope) -> Upload:
        return Upload(self, envelope)

    async def show(self, message_id: str) -> Status | None:
        """None when it is unknown. Raises Unavailable."""
        try:
            found = await self._queue.Show(queue_pb2.ShowRequest(message_id=message_id), timeout=LOOKUP_SECONDS)
        except grpc.RpcError as error:
            if isinstance(error, aio.AioRpcError) and error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise Unavailable(f"queue: {_code(error)}") from error
        summary = found.summary
        recipients = (RecipientStatus(r.address, r.state, r.attempts, r.due_at_ms, r.last_reply) for r in summary.recipients)
        who = (summary.message_id, summary.tenant, found.domain, found.credential, found.envid)
        return Status(*who, summary.reverse_path, summary.received_at_ms, summary.expires_at_ms, tuple(recipients))

    def stream(self) -> aio.StreamUnaryCall[spool_pb2.EnqueueChunk, spool_pb2.EnqueueResponse]:
        """A call for one message in chunks."""
        return self._stub.Enqueue(timeout=UPLOAD_SECONDS)

    async def whole(self, chunk: spool_pb2.EnqueueChunk) -> spool_pb2.EnqueueResponse:
        """Commits a message that is one chunk. Raises Unavailable."""
        return await self._batcher.ask(chunk)

    async def _call(self, chunks: Sequence[spool_pb2.EnqueueChunk]) -> Sequence[spool_pb2.EnqueueResponse]:
        try:
            return (await self._stub.EnqueueBatch(spool_pb2.EnqueueBatchRequest(messages=chunks), timeout=COMMIT_SECONDS)).responses
        except (grpc.RpcError, aio.UsageError) as error:  # UsageError: the channel was closed while the message waited
            raise Unavailable(f"spool: {_code(error)}") from error


class SuppressionClient:
    """See postroom_ingress.suppression.Source."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = suppression_pb2_grpc.SuppressionStub(channel)

    async def filter(self, version: str) -> tuple[str, bytes]:
        try:
            response = await self._stub.Filter(suppression_pb2.SuppressionFilterRequest(version=version), timeout=LOOKUP_SECONDS)
        except grpc.RpcError as error:
            if _has_no_list(error):
                return "", bytes(Filter.sized(0))
            raise Unavailable(f"suppression list: {_code(error)}") from error
        return response.version, response.bits

    async def lookup(self, tenant: str, domain: str, address: str) -> str:
        request = suppression_pb2.SuppressionLookupRequest(tenant=tenant, domain=domain, address=address)
        try:
            return (await self._stub.Lookup(request, timeout=LOOKUP_SECONDS)).text
        except grpc.RpcError as error:
            if _has_no_list(error):
                return ""
            raise Unavailable(f"suppression list: {_code(error)}") from error

    async def proven(self, return_path: str) -> bool:
        """Whether it is the return path of a recipient of ours. Raises Unavailable."""
        try:
            return (await self._stub.CheckReturnPath(suppression_pb2.ReturnPathRequest(address=return_path), timeout=LOOKUP_SECONDS)).proven
        except grpc.RpcError as error:
            raise Unavailable(f"return path: {_code(error)}") from error

    async def report(self, content: bytes, return_path: str) -> None:
        """A bounce or complaint that came back, whether it is about a message or not. Raises Unavailable."""
        try:
            request = suppression_pb2.SuppressionReport(content=content, return_path=return_path)
            await self._stub.Report(request, timeout=COMMIT_SECONDS)
        except grpc.RpcError as error:
            raise Unavailable(f"suppression list: {_code(error)}") from error


def _has_no_list(error: grpc.RpcError) -> bool:
    """Whether a delivery of an older version answers, as during an update: it knows no list, and mail goes on."""
    return isinstance(error, aio.AioRpcError) and error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)


class Deliveries:
    """The deliveries of all pools: one channel for each target that the directory names, closed when it names it no more."""

    def __init__(self, connect: Callable[[str], aio.Channel], default_target: str, clock: Clock) -> None:
        self._connect = connect
        self._default = default_target
        self._clock = clock
        self._targets = {default_target} - {""}
        self._channels: dict[str, tuple[aio.Channel, SpoolClient, SuppressionList, SuppressionClient]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def upload(self, envelope: Envelope, target: str = "") -> Upload:
        """Of one message to the delivery at `target`, "" is the default. Raises Unavailable when there is none."""
        return self._at(target)[1].upload(envelope)

    async def show(self, message_id: str, target: str = "") -> Status | None:
        """A message of the delivery at `target`. Raises Unavailable."""
        return await self._at(target)[1].show(message_id)

    async def suppressed(self, target: str, tenant: str, domain: str, address: str) -> Reply | None:
        """The reply to a recipient that gets no mail any more, by the list of the delivery at `target`."""
        try:
            return await self._at(target)[2].refusal(tenant, domain, address)
        except Unavailable:
            return AWAY

    def _at(self, target: str) -> tuple[aio.Channel, SpoolClient, SuppressionList, SuppressionClient]:
        target = target or self._default
        if not target:
            raise Unavailable("spool: the domain's pool has no delivery yet")
        if target not in self._channels:
            channel = self._connect(target)
            suppression = SuppressionClient(channel)
            self._channels[target] = channel, SpoolClient(channel), SuppressionList(suppression, self._clock), suppression
        return self._channels[target]

    async def forged(self, target: str, return_path: str) -> Reply | None:
        """The reply to a return path that names a recipient, when the delivery at `target` does not know its proof."""
        try:
            return None if await self._at(target)[3].proven(return_path) else FORGED
        except Unavailable:
            return AWAY

    async def report(self, content: bytes, return_path: str, target: str) -> None:
        """A report about mail of the delivery at `target`. Raises Unavailable."""
        await self._at(target)[3].report(content, return_path)

    async def serving(self) -> bool:
        """Whether a delivery serves, of all that the directory names: one pool that is away must not close the door to the others."""
        channels = [self._at(target)[0] for target in self._targets]
        return not channels or any(await asyncio.gather(*map(is_serving, channels)))

    def retain(self, targets: Collection[str]) -> None:
        """Closes the channels to other targets; uploads under way may end."""
        self._targets = {target or self._default for target in (*targets, self._default)} - {""}
        for target in [known for known in self._channels if known not in targets and known != self._default]:
            channel, *_ = self._channels.pop(target)
            task = asyncio.get_running_loop().create_task(channel.close(UPLOAD_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """At once; uploads under way fail."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for channel, *_ in self._channels.values():
            await channel.close()
        self._channels.clear()


def _wire(envelope: Envelope) -> spool_pb2.Envelope:
    return spool_pb2.Envelope(
        message_id=envelope.message_id,
        tenant=envelope.tenant,
        pool=envelope.pool,
        domain=envelope.domain,
        credential=envelope.credential,
        reverse_path=envelope.reverse_path,
        recipients=[spool_pb2.Recipient(address=str(r.recipient), notify=r.notify, orcpt=r.orcpt) for r in envelope.recipients],
        ret=envelope.ret,
        envid=envelope.envid,
        received_at_ms=envelope.received_at,
        client_address=envelope.client_address,
        traceparent=envelope.traceparent,
        allowances=[
            spool_pb2.Allowance(key=a.key, window_seconds=a.window_seconds, maximum=a.maximum, amount=a.amount, unit=a.unit)
            for a in envelope.allowances
        ],
        options=_options(envelope.options),
    )


def _options(options: MailOptions) -> spool_pb2.MailOptions:
    return spool_pb2.MailOptions(
        smtputf8=options.smtputf8,
        require_tls=options.require_tls,
        tls_optional=options.tls_optional,
        binary=options.binary,
        hold_until_ms=options.hold_until,
        deliver_by_ms=options.deliver_by,
        deliver_by_return=options.deliver_by_return,
        priority=options.priority,
    )


def _code(error: BaseException) -> str:
    return error.code().name if isinstance(error, aio.AioRpcError) else type(error).__name__
