"""gRPC client of the signers."""

import pathlib

from grpc import aio

from postroom.v1 import signer_pb2, signer_pb2_grpc
from postroom_core import rpc
from postroom_core.errors import Unavailable

# Loaded answers from memory; a signer that needs longer is not ready.
SECONDS = 5.0


async def loaded(target: str, domain: str, tls: pathlib.Path | None) -> frozenset[str]:
    """The selectors that one signer holds for a domain. Raises Unavailable when it does not answer."""
    try:
        async with rpc.connect(target, "signer", tls) as channel:
            answer = await signer_pb2_grpc.SignerStub(channel).Loaded(signer_pb2.LoadedRequest(domain=domain), timeout=SECONDS)
    except aio.AioRpcError as error:
        raise Unavailable(f"signer {target}: {error.code().name}") from error
    except OSError as error:  # no usable certificate
        raise Unavailable(f"signer {target}: {error}") from error
    return frozenset(answer.selectors)
