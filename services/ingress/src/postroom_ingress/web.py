"""Serves the API over HTTP/1.1: TLS with the listeners' certificates, or in clear where only this machine can listen in.

uvicorn does the protocol. What it leaves open is closed here: a client that drips its header holds a connection for half a minute at most, and
connections that are only held never use up the descriptors that SMTP needs.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from postroom_core.errors import Permanent

# Connections at once that are answered, with 503 where there are more; the large bodies have a bound of their own.
MOST_AT_ONCE = 256
# Connections at once. One more is closed before it has said anything: there is no 503 for a client that never asks.
MOST_CONNECTIONS = 512
IDLE_CHECK_SECONDS = 15.0
KEEP_ALIVE_SECONDS = 15
HEADER_OCTETS = 32 * 1024
DRAIN_SECONDS = 30


class _Protocol(H11Protocol):
    """Closes a connection that has no request under way at two checks in a row."""

    _idle_before = False
    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
            return
        self._check = self.loop.call_later(IDLE_CHECK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._idle_before:
            self.transport.close()
            return
        self._idle_before = idle
        self._check = self.loop.call_later(IDLE_CHECK_SECONDS, self._look)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's: it asks for the drain."""
        yield


def is_private(where: str) -> bool:
    """Whether only this machine can reach ADDRESS:PORT or unix:PATH, so that credentials may come in clear."""
    if where.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(where.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return False


@contextlib.asynccontextmanager
async def serve(where: str, application: Any, tls: ssl.SSLContext | None, *, shared: bool) -> AsyncIterator[None]:
    """Until the block ends and requests are done. Raises OSError when the place is taken, Permanent without TLS where it is needed."""
    if tls is None and not is_private(where):
        raise Permanent(f"HTTP at {where} can be reached from elsewhere and needs a certificate: credentials never go in clear")
    local = where.removeprefix("unix:") if where.startswith("unix:") else None
    bound = [] if local is not None else [_bind(where, shared=shared)]
    config = uvicorn.Config(
        application,
        uds=local,
        http=_Protocol,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        h11_max_incomplete_event_size=HEADER_OCTETS,
    )
    config.load()
    config.ssl = None if is_private(where) else tls
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=bound or None))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
            if serving.done():
                raise OSError(f"cannot serve HTTP at {where}")
        yield
    finally:
        server.should_exit = True
        await serving
        for listening in bound:
            listening.close()


def _bind(where: str, *, shared: bool) -> socket.socket:
    address, _, port = where.rpartition(":")
    address = address.strip("[]")
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((address, int(port)))
    except OSError as error:
        bound.close()
        raise OSError(f"cannot listen on {where} (http): {error.strerror or error}") from error
    return bound
