"""gRPC between the services: how a server listens and how a client connects. Unix sockets on one machine; mTLS comes with the cluster.

Every call has a deadline and is safe to repeat; nothing is retried here: the caller answers 4xx and its own client comes back.
"""

import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

# A message is at most: 64 KiB of body, a header block of 256 KiB and 1000 recipients of 770 octets with their DSN parameters; or a batch of half
# a MiB. Larger ones are refused by the transport before they cost memory.
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
Server = aio.Server
_OPTIONS = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
# After a restart of the other side the next call must find it quickly; 1 s is also what one refused client waits at most.
_CLIENT_OPTIONS = [
    *_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def unix_path(target: str) -> pathlib.Path | None:
    """The socket's path for unix:PATH, None for other targets."""
    return pathlib.Path(target.removeprefix("unix:")) if target.startswith("unix:") else None


@contextlib.asynccontextmanager
async def serve(target: str, register: Callable[[Server], None], *, grace_seconds: float) -> AsyncIterator[HealthServicer]:
    """Listens at `target`; on exit health says NOT_SERVING, running calls get `grace_seconds`, the rest is cancelled.

    Raises OSError when the target cannot be bound.
    """
    server = aio.server(options=_OPTIONS)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    register(server)
    path = unix_path(target)
    if path is not None:
        path.unlink(missing_ok=True)
    try:
        bound = server.add_insecure_port(target)
    except RuntimeError as error:
        raise OSError(f"cannot listen at {target}: {error}") from error
    if not bound:
        raise OSError(f"cannot listen at {target}")
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    try:
        yield health
    finally:
        await health.enter_graceful_shutdown()
        await server.stop(grace_seconds)


def connect(target: str) -> aio.Channel:
    """A channel to `target`; connects on first use and again after each loss. Close it with `async with`."""
    return aio.insecure_channel(target, options=_CLIENT_OPTIONS)
