"""The listening ports: accept connections up to a limit, make sessions, drain them. I/O only; the sessions decide nothing about each other."""

import asyncio
import os
import ssl
import tempfile
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from postroom_core.connection import Connection
from postroom_core.documents import Certificate
from postroom_core.errors import Permanent
from postroom_core.reply import Reply
from postroom_ingress.session import Listener, Session

log = structlog.get_logger(__name__)
OPEN = Gauge("postroom_ingress_open_sessions", "Sessions open now")
FULL = Reply(421, "4.3.2", "Too many connections, try again soon")
BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Port:
    """Where to listen; `implicit_tls` needs a certificate before it can open."""

    name: str
    address: str
    port: int
    implicit_tls: bool


class Listeners:
    """All ports of the process; `limit` connections together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._servers: list[asyncio.Server] = []
        self._sessions: dict[Session, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"Listeners(ports={len(self._servers)}, sessions={len(self._sessions)}, limit={self._limit})"

    async def open(self, port: Port, listener: Listener) -> None:
        """Raises OSError with the port in its text when it is taken."""
        context = listener.tls() if port.implicit_tls else None
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Connection(lambda connection: self._accept(connection, listener)),
                port.address,
                port.port,
                ssl=context,
                ssl_handshake_timeout=listener.services.deadlines.tls if context is not None else None,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise OSError(f"cannot listen on {port.address}:{port.port} ({port.name}): {error.strerror or error}") from error
        self._servers.append(server)

    def _accept(self, connection: Connection, listener: Listener) -> None:
        if len(self._sessions) >= self._limit:
            connection.write(FULL.encode())
            connection.close()
            return
        session = Session(connection, listener)
        task = asyncio.create_task(session.run())
        self._sessions[session] = task
        OPEN.set(len(self._sessions))
        task.add_done_callback(lambda done: self._ended(session, done))

    def _ended(self, session: Session, task: asyncio.Task[None]) -> None:
        del self._sessions[session]
        OPEN.set(len(self._sessions))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a session ended by an unforeseen error", exc_info=error)

    async def drain(self, seconds: float) -> None:
        """Stops accepting, lets transactions finish, cuts the rest after `seconds` and says how many."""
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.drain()
        if not self._sessions:
            return
        _, late = await asyncio.wait(self._sessions.values(), timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("sessions cut at the end of the drain", sessions=len(late))
            await asyncio.wait(late, timeout=5)


class Tls:
    """The TLS context of the listeners; a changed certificate is loaded into the same context, so that new handshakes use it and sessions live on."""

    def __init__(self) -> None:
        self._document: Certificate | None = None
        self._context: ssl.SSLContext | None = None

    def replace(self, document: Certificate | None) -> None:
        """A certificate that cannot be loaded is logged and the last one stays in force."""
        if document is None or document == self._document:
            return
        context = self._context or _context()
        try:
            _load(context, document)
        except Permanent as error:
            log.error("certificate not loaded", certificate=document.name, reason=str(error))
            return
        self._context, self._document = context, document

    def current(self) -> ssl.SSLContext | None:
        return self._context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _load(context: ssl.SSLContext, document: Certificate) -> None:
    """OpenSSL reads files only: an anonymous one in memory where the system has it, else a temporary one that nobody else can read."""
    pem = (document.chain + "\n" + document.private_key).encode()
    try:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        else:
            with tempfile.NamedTemporaryFile() as file:
                file.write(pem)
                file.flush()
                context.load_cert_chain(file.name)
    except (ssl.SSLError, OSError) as error:
        raise Permanent(f"not a certificate with its private key in PEM ({type(error).__name__})") from error
