"""The signer as a process: serves gRPC and HTTP, follows the directory; closes in reverse."""

import asyncio
import contextlib
import sys

import structlog

from postroom.v1 import signer_pb2_grpc
from postroom_core import http, rpc
from postroom_core.directory import Directory, source
from postroom_core.errors import Permanent, Transient
from postroom_core.lifecycle import Stopping, supervised
from postroom_signer.keys import Keyring
from postroom_signer.servicer import SignerServicer
from postroom_signer.settings import Settings

log = structlog.get_logger(__name__)
# A signature takes a millisecond; whoever has asked gets his answer.
GRACE_SECONDS = 5.0
CANNOT_START = 3


async def run(settings: Settings, stopping: Stopping) -> None:
    """Until asked to stop. Exits with status 3 and one line when a socket cannot be bound or the configuration not used."""
    keyring = Keyring()
    try:
        directory = Directory(source(settings.directory))
        directory.subscribe(keyring.replace)
        with contextlib.suppress(Transient):  # not published yet: readiness says so
            directory.refresh()
        async with contextlib.AsyncExitStack() as stack:
            ready = http.application(lambda: "" if directory.snapshot.version else "no directory yet")
            await stack.enter_async_context(http.serve(settings.http, ready))
            follower = asyncio.create_task(supervised("directory", directory.follow))
            stack.callback(follower.cancel)
            servicer = SignerServicer(keyring)

            def register(server: rpc.Server) -> None:
                signer_pb2_grpc.add_SignerServicer_to_server(servicer, server)

            await stack.enter_async_context(rpc.serve(settings.listen, register, grace_seconds=GRACE_SECONDS, tls=settings.grpc_tls))
            log.info("signer is serving", keyring=repr(keyring))
            await stopping.wait()
            log.info("signer drains")
    except (Permanent, OSError) as error:
        print(f"postroom-signer: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_START) from None
