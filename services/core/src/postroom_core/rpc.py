"""gRPC between the services: how a server listens and how a client connects. Unix sockets on one machine, mTLS between pods; never plain TCP.

Every call has a deadline and is safe to repeat. Between pods a call that found its server gone is tried again at another one within its
deadline; on one machine there is no other one, the caller answers 4xx and its own client comes back.
"""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from postroom_core import mtls

log = structlog.get_logger(__name__)
# A message is at most: 64 KiB of body, a header block of 256 KiB and 1000 recipients of 770 octets with their DSN parameters; or a batch of half
# a MiB. Larger ones are refused by the transport before they cost memory.
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
# The longest deadline of any call (an upload): what a channel with an outdated certificate still gets to finish.
LONGEST_CALL_SECONDS = 3600.0
HEALTH_SECONDS = 2.0  # a side that does not say within this that it serves is away
Channel = aio.Channel
Server = aio.Server
_OPTIONS: list[tuple[str, Any]] = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
# Between pods. A client resolves the headless Service's name again when a connection ends, so a connection's age (gRPC adds 10 % of jitter)
# is what a new pod waits for its first work: 6 s, with the 5 s below, keep that within 10 s. A handshake costs 2 ms. Running calls outlive
# the connection's age: no grace is set.
_SERVER_TCP_OPTIONS = [
    ("grpc.max_connection_age_ms", 6000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
]
# After a restart of the other side the next call must find it quickly; 1 s is also what one refused client waits at most.
_CLIENT_OPTIONS = [
    *_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# UNAVAILABLE only: the call did not reach a server, or the server died; every call is safe to repeat. Four attempts pass over three dead pods.
_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
# A node that vanished sends nothing: the ping finds out in 15 s at most, and only then do calls that were on their way fail.
_CLIENT_TCP_OPTIONS = [
    *_CLIENT_OPTIONS,
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.dns_min_time_between_resolutions_ms", 5000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5000),
    # Pods do not share connections with other channels of the process: a renewed channel must not find the old one's connections.
    ("grpc.use_local_subchannel_pool", 1),
]


def unix_path(target: str) -> pathlib.Path | None:
    """The socket's path for unix:PATH, None for other targets."""
    return pathlib.Path(target.removeprefix("unix:")) if target.startswith("unix:") else None


@contextlib.asynccontextmanager
async def serve(
    target: str, register: Callable[[Server], None], *, grace_seconds: float, tls: pathlib.Path | None = None
) -> AsyncIterator[HealthServicer]:
    """Listens at `target`; on exit health says NOT_SERVING, running calls get `grace_seconds`, the rest is cancelled.

    `tls` is the folder of the certificate, needed for all but unix sockets. Raises OSError when the target cannot be bound or `tls` not used.
    """
    path = unix_path(target)
    if path is not None:
        server = aio.server(options=_OPTIONS)
        path.unlink(missing_ok=True)
    else:
        watched = _watched(target, tls)
        server = aio.server(options=[*_OPTIONS, *_SERVER_TCP_OPTIONS], interceptors=[_Gate(watched)])
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    register(server)
    try:
        bound = server.add_insecure_port(target) if path is not None else server.add_secure_port(target, _server_credentials(watched))
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


def connect(target: str, peer: str = "", tls: pathlib.Path | None = None) -> aio.Channel:
    """A channel to `target`; connects on first use and again after each loss. Close it with `async with`.

    Other targets than unix:PATH need `tls` and the service `peer` that must answer; HOST:PORT is resolved again and again, and calls go in
    turn to every address that answers. Raises OSError when `tls` cannot be used.
    """
    if unix_path(target) is not None:
        return aio.insecure_channel(target, options=_CLIENT_OPTIONS)
    return _Renewing(target if "://" in target or target.startswith("ipv4:") else f"dns:///{target}", peer, _watched(target, tls))


def _watched(target: str, tls: pathlib.Path | None) -> mtls.Watched:
    if tls is None:
        raise mtls.MaterialError(f"{target} is neither unix:PATH nor secured: set POSTROOM_GRPC_TLS; plain TCP is refused")
    return mtls.Watched(tls)


# Server


def _server_credentials(watched: mtls.Watched) -> grpc.ServerCredentials:
    """Asked for at every handshake, so that a renewed certificate is in force for the next connection."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        material = watched.current()
        return grpc.ssl_server_certificate_configuration([(material.private_key, material.chain)], material.ca)

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=True)


class _Gate(aio.ServerInterceptor):
    """Refuses callers that `mtls.CALLERS` does not name for the method."""

    def __init__(self, watched: mtls.Watched) -> None:
        self._watched = watched

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method

        async def check(context: aio.ServicerContext[Any, Any]) -> None:
            names = context.auth_context().get("x509_subject_alternative_name", ())
            service = mtls.caller(names, self._watched.current().domain)
            if not mtls.may_call(service, method):
                log.warning("a caller was refused", caller=service or "stranger", method=method)
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{service or 'a stranger'} may not call {method}")

        return _checked(handler, check)


def _checked(handler: Any, check: Callable[[Any], Any]) -> Any:
    """`handler` with `check` before it."""
    inner = handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream

    async def answer(request: Any, context: Any) -> Any:
        await check(context)
        return await inner(request, context)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        await check(context)
        async for response in inner(request, context):
            yield response

    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(stream if handler.response_streaming else answer, handler.request_deserializer, handler.response_serializer)


# Client


class _Renewing(aio.Channel):
    """A channel that is built anew when the certificate changes: gRPC's own cannot change theirs. Calls under way end on the old one."""

    def __init__(self, target: str, peer: str, watched: mtls.Watched) -> None:
        self._target = target
        self._peer = peer
        self._watched = watched
        self._material = watched.current()
        self._channel = self._build()
        self._closing: set[asyncio.Task[None]] = set()

    def _build(self) -> aio.Channel:
        material = self._material
        # Whatever the address is called, the peer must prove to be this service of our domain.
        identity = [("grpc.ssl_target_name_override", f"{self._peer}.{material.domain}")]
        credentials = grpc.ssl_channel_credentials(material.ca, material.private_key, material.chain)
        return aio.secure_channel(self._target, credentials, options=[*_CLIENT_TCP_OPTIONS, *identity])

    def _current(self) -> aio.Channel:
        material = self._watched.current()
        if material is not self._material:
            old, self._material = self._channel, material
            self._channel = self._build()
            task = asyncio.get_running_loop().create_task(_retire(old))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return self._channel

    def _callable(self, kind: str, *args: Any, **kwargs: Any) -> Any:
        made: tuple[aio.Channel, Any] | None = None

        def call(*call_args: Any, **call_kwargs: Any) -> Any:
            nonlocal made
            channel = self._current()
            if made is None or made[0] is not channel:
                made = (channel, getattr(channel, kind)(*args, **kwargs))
            return made[1](*call_args, **call_kwargs)

        return call

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._callable("unary_unary", *args, **kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._callable("unary_stream", *args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._callable("stream_unary", *args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._callable("stream_stream", *args, **kwargs)

    async def close(self, grace: float | None = None) -> None:
        """Outdated channels are closed at once."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(grace)

    async def __aenter__(self) -> "_Renewing":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._current().channel_ready()


async def _retire(channel: aio.Channel) -> None:
    """Closes an outdated channel when its calls have ended."""
    try:
        await channel.close(LONGEST_CALL_SECONDS)
    except asyncio.CancelledError:
        await channel.close()
        raise


async def is_serving(channel: Channel) -> bool:
    """Whether the other side says that it serves (grpc.health.v1). Raises nothing for one that is away."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
    except aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
