"""gRPC client of delivery: the signer, for the messages that delivery makes itself. Wire in, domain out; every fault becomes Unavailable."""

import grpc
from grpc import aio

from postroom.v1 import signer_pb2, signer_pb2_grpc
from postroom_core.errors import Unavailable

# A signature takes a millisecond; a signer that needs longer is asked again with the next attempt.
SIGN_SECONDS = 5.0


class SignerClient:
    """Signs header blocks."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = signer_pb2_grpc.SignerStub(channel)

    async def sign(self, domain: str, tenant: str, header_block: bytes, body_sha256: bytes, now_seconds: int) -> bytes:
        """The DKIM-Signature fields. Raises Unavailable, also for a refusal: what we make ourselves is ours to mend."""
        body_hash = signer_pb2.BodyHash(canonicalization=signer_pb2.CANONICALIZATION_RELAXED, sha256=body_sha256)
        request = signer_pb2.SignRequest(domain=domain, tenant=tenant, header_block=header_block, body_hashes=[body_hash], now_seconds=now_seconds)
        try:
            response = await self._stub.Sign(request, timeout=SIGN_SECONDS)
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, aio.AioRpcError) else type(error).__name__
            raise Unavailable(f"signer: {code}") from error
        if not response.HasField("signature"):
            raise Unavailable(f"signer: {response.refusal.text or 'an answer without a signature'}")
        return response.signature.header_fields
