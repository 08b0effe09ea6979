"""gRPC clients of ingress: the signer and the spool. Wire in, domain out; every call has a deadline; every fault becomes Unavailable."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

import grpc
from grpc import aio

from postroom.v1 import signer_pb2, signer_pb2_grpc, spool_pb2, spool_pb2_grpc
from postroom_core.errors import Unavailable
from postroom_core.reply import Reply
from postroom_ingress.envelope import Envelope

# A signature takes a millisecond; whoever waits longer for it hears 451 and comes back.
SIGN_SECONDS = 5.0
# From the end of the message to its commit: a disk that takes longer is down for a mail client that waits.
COMMIT_SECONDS = 30.0
# The whole of an upload: the longest session that DATA may have, see postroom_ingress.reception.
UPLOAD_SECONDS = 3600.0


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
    """Signs header blocks."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = signer_pb2_grpc.SignerStub(channel)

    async def sign(self, envelope: Envelope, header_block: bytes, body_sha256: bytes, now_seconds: int) -> bytes | Refused:
        """The DKIM-Signature fields. Raises Unavailable."""
        body_hash = signer_pb2.BodyHash(canonicalization=signer_pb2.CANONICALIZATION_RELAXED, sha256=body_sha256)
        request = signer_pb2.SignRequest(
            domain=envelope.domain, tenant=envelope.tenant, header_block=header_block, body_hashes=[body_hash], now_seconds=now_seconds
        )
        try:
            response = await self._stub.Sign(request, timeout=SIGN_SECONDS)
        except grpc.RpcError as error:
            raise Unavailable(f"signer: {_code(error)}") from error
        if response.HasField("signature"):
            return response.signature.header_fields
        reason = _REFUSALS.get(response.refusal.reason)
        if reason is None:
            raise Unavailable("signer: an answer without a signature")
        return Refused(reason, response.refusal.text)


class Upload:
    """One message on its way to the spool: `body` any number of times, then `end` once, or `cancel`."""

    def __init__(self, stub: spool_pb2_grpc.SpoolAsyncStub, envelope: Envelope) -> None:
        self._call = stub.Enqueue(timeout=UPLOAD_SECONDS)
        self._envelope: spool_pb2.Envelope | None = _wire(envelope)

    async def body(self, chunk: bytes) -> None:
        """Sends a chunk of at most 64 KiB, waits while the spool is slower than the client. Raises Unavailable."""
        await self._write(spool_pb2.EnqueueChunk(envelope=self._take_envelope(), body=chunk))

    async def end(self, last: bytes, header_block: bytes, body_size: int, *, eight_bit: bool) -> Reply | None:
        """Commits; a reply when the spool refuses. Raises Unavailable."""
        end = spool_pb2.End(header_block=header_block, body_size=body_size, eight_bit=eight_bit)
        await self._write(spool_pb2.EnqueueChunk(envelope=self._take_envelope(), body=last, end=end))
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._call.done_writing()
                response = await self._call
        except (grpc.RpcError, TimeoutError) as error:
            raise Unavailable(f"spool: {_code(error)}") from error
        if response.HasField("refused"):
            return Reply(response.refused.code, response.refused.enhanced, response.refused.text)
        return None

    def cancel(self) -> None:
        """Nothing of the message stays behind."""
        self._call.cancel()

    def _take_envelope(self) -> spool_pb2.Envelope | None:
        envelope, self._envelope = self._envelope, None
        return envelope

    async def _write(self, chunk: spool_pb2.EnqueueChunk) -> None:
        try:
            await self._call.write(chunk)
        except asyncio.InvalidStateError:
            return  # the spool has already answered, a refusal: `end` reads it
        except (grpc.RpcError, aio.UsageError) as error:
            raise Unavailable(f"spool: {_code(error)}") from error


class SpoolClient:
    """Hands messages over to delivery."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = spool_pb2_grpc.SpoolStub(channel)

    def upload(self, envelope: Envelope) -> Upload:
        return Upload(self._stub, envelope)


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
        allowances=[spool_pb2.Allowance(key=key, window_seconds=window, maximum=most) for key, window, most in envelope.allowances],
    )


def _code(error: BaseException) -> str:
    return error.code().name if isinstance(error, aio.AioRpcError) else type(error).__name__
