"""A receiving mail server with faults: where tests, benchmarks and `postroom up --sink` send mail to. It is never in the path of real mail.

It records every message octet for octet, does what a script of faults tells it (postroom_core.testing.faults), and notes each rule of
RFC 5321, 1870, 2920, 3030, 3461, 6152 or 6531 that the client breaks. It relays nothing and keeps nothing on disk.
"""

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import Callable, Sequence

from postroom_core.connection import Connection
from postroom_core.testing.certificate import Certificate, self_signed
from postroom_core.testing.faults import Script
from postroom_core.testing.sink_session import Offer, Received, Session

__all__ = ["Received", "Sink"]

EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 104857600", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Sink:
    """`async with Sink() as sink: …; await sink.wait_for(1)`.

    `on_message` gets every message instead of the list `messages`; `tls` adds STARTTLS with a certificate or a context of yours, or, when
    "STARTTLS" is among `extensions`, with one made for the occasion. Raises OSError when the port cannot be bound.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        on_message: Callable[[Received], None] | None = None,
        script: Script | None = None,
        tls: Certificate | ssl.SSLContext | None = None,
        extensions: Sequence[str] = EXTENSIONS,
    ) -> None:
        self.address = address
        self.port = port
        self.script = script
        self.messages: list[Received] = []
        self.violations: list[str] = []
        self.sessions = 0
        self.received = 0
        self._on_message = on_message
        self._offer = Offer(tuple(name for name in extensions if name.upper() != "STARTTLS"), _context(tls, extensions))
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Sink":
        loop = asyncio.get_running_loop()
        # The default queue of 100 connections would turn a burst of a benchmark into refused connections.
        self._server = await loop.create_server(lambda: Connection(self._accept), self.address, self.port, backlog=1024)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def open_sessions(self) -> int:
        """How many connections are open now."""
        return len(self._tasks)

    async def wait_for(self, count: int) -> list[Received]:
        """Returns `messages` when `count` messages have arrived since the start."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.received >= count)
        return self.messages

    def _accept(self, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: Connection) -> None:
        self.sessions += 1
        session = Session(connection, self.sessions, self._offer, self._script, self.violations.append)
        session.on_message = self._keep
        try:
            # A client that resets or breaks TLS is everyday life for a server, and no news to a test.
            with contextlib.suppress(OSError):
                await session.run()
        except asyncio.CancelledError:
            connection.abort()  # the sink stops: no farewell, so that nothing is left for the loop to do
            raise

    def _script(self, *arguments: object) -> object:
        return self.script(*arguments) if self.script is not None else None  # type: ignore[arg-type]

    async def _keep(self, received: Received) -> None:
        self.received += 1
        received = dataclasses.replace(received, number=self.received)
        if self._on_message is not None:
            self._on_message(received)
        else:
            self.messages.append(received)
        async with self._arrived:
            self._arrived.notify_all()


def _context(tls: Certificate | ssl.SSLContext | None, extensions: Sequence[str]) -> ssl.SSLContext | None:
    if tls is None and any(name.upper() == "STARTTLS" for name in extensions):
        tls = self_signed("localhost", "127.0.0.1")
    return tls.server_context() if isinstance(tls, Certificate) else tls
