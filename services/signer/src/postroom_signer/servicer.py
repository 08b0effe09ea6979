"""gRPC servicer of the signer: wire → keys and dkim → wire. Refuses what cannot be signed; never raises for what a message holds."""

import asyncio
from typing import Any

from grpc import aio
from prometheus_client import Counter, Histogram

from postroom.v1 import signer_pb2, signer_pb2_grpc
from postroom_core.headers import MalformedHeader, check, parse
from postroom_signer import dkim
from postroom_signer.keys import DomainKeys, Keyring

REQUESTS = Counter("postroom_signer_requests", "Sign requests by outcome", ["outcome"])
SIGNATURES = Counter("postroom_signer_signatures", "Signatures made", ["algorithm"])
SECONDS = Histogram("postroom_signer_seconds", "Time to sign one message", buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1))

Context = aio.ServicerContext[Any, Any]
_Reason = signer_pb2.Refusal.Reason
SHA256_OCTETS = 32


class SignerServicer(signer_pb2_grpc.SignerServicer):
    """Signing takes about half a millisecond for both algorithms: it stays in the event loop, a thread would cost as much as it saves."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def Sign(self, request: signer_pb2.SignRequest, context: Context) -> signer_pb2.SignResponse:
        return self._answer(request)

    async def SignBatch(self, request: signer_pb2.SignBatchRequest, context: Context) -> signer_pb2.SignBatchResponse:
        response = signer_pb2.SignBatchResponse()
        for one in request.requests:
            response.responses.append(self._answer(one))
            await asyncio.sleep(0)  # lets health checks through between two signatures
        return response

    def _answer(self, request: signer_pb2.SignRequest) -> signer_pb2.SignResponse:
        keys = self._keyring.get(request.domain)
        if keys is None:
            return _refused(_Reason.NO_KEY, f"The DKIM key of {request.domain} is not published yet")
        if keys.tenant != request.tenant:
            return _refused(_Reason.NOT_OWNER, f"{request.domain} does not belong to the sender")
        relaxed = [h.sha256 for h in request.body_hashes if h.canonicalization == signer_pb2.CANONICALIZATION_RELAXED]
        if len(relaxed) != 1 or len(relaxed[0]) != SHA256_OCTETS:
            return _refused(_Reason.MALFORMED, "The request has no relaxed body hash")
        with SECONDS.time():
            return self._sign(request, keys, relaxed[0])

    def _sign(self, request: signer_pb2.SignRequest, keys: DomainKeys, body_sha256: bytes) -> signer_pb2.SignResponse:
        try:
            fields = parse(request.header_block)
            check(fields)
        except MalformedHeader as error:
            return _refused(_Reason.MALFORMED, str(error))
        made = [dkim.signature_field(fields, body_sha256, request.domain, key, request.now_seconds) for key in keys.keys]
        for key in keys.keys:
            SIGNATURES.labels(key.tag).inc()
        REQUESTS.labels("signed").inc()
        selectors = [key.selector for key in reversed(keys.keys)]
        return signer_pb2.SignResponse(signature=signer_pb2.Signature(header_fields=b"".join(reversed(made)), selectors=selectors))

    async def Loaded(self, request: signer_pb2.LoadedRequest, context: Context) -> signer_pb2.LoadedResponse:
        return signer_pb2.LoadedResponse(selectors=self._keyring.held(request.domain))


def _refused(reason: signer_pb2.Refusal.Reason.ValueType, text: str) -> signer_pb2.SignResponse:
    REQUESTS.labels(_Reason.Name(reason).lower()).inc()
    return signer_pb2.SignResponse(refusal=signer_pb2.Refusal(reason=reason, text=text))
