"""The listening ports: accept connections, ask who comes, let in or refuse, make sessions, drain them. I/O; who is let in is decided in `admission`.

From accept() on a connection holds a place, also during its PROXY header and its TLS handshake, so that nobody fills the house from the doorstep.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Gauge

from postroom_core.clock import Clock
from postroom_core.connection import Connection, ConnectionClosed
from postroom_core.lifecycle import supervised
from postroom_core.reply import Reply
from postroom_ingress import proxy
from postroom_ingress.admission import FULL, Admission
from postroom_ingress.session import EARLY, Client, Listener, Session

log = structlog.get_logger(__name__)
OPEN = Gauge("postroom_ingress_open_sessions", "Connections open now")
TURNED_AWAY = Counter("postroom_ingress_turned_away", "Connections that became no session, by reason", ["reason"])
BACKLOG = 512
# Out of file descriptors: the next accept() fails as well until somebody leaves.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE_SECONDS = 0.1
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Port:
    """Where to listen; `implicit_tls` needs a certificate before it can open; with `proxy` every connection begins with a PROXY header.

    `shared` lets other processes listen there too (SO_REUSEPORT).
    """

    name: str
    address: str
    port: int
    implicit_tls: bool
    proxy: bool = False
    shared: bool = False


class TurnedAway(Exception):
    """The connection becomes no session; the text is the reason for the counter."""


class Listeners:
    """All ports of the process."""

    def __init__(self, admission: Admission, proxies: tuple[Network, ...], clock: Clock) -> None:
        self._admission = admission
        self._proxies = proxies
        self._clock = clock
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._sessions: dict[Session, asyncio.Task[None]] = {}
        self._arriving: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Listeners(ports={len(self._sockets)}, sessions={len(self._sessions)}, connections={self._admission.total})"

    async def open(self, port: Port, listener: Listener) -> None:
        """Raises OSError with the port in its text when it is taken."""
        try:
            bound = await _bind(port)
        except OSError as error:
            raise OSError(f"cannot listen on {port.address}:{port.port} ({port.name}): {error.strerror or error}") from error
        self._sockets.append(bound)
        self._accepting.append(asyncio.create_task(supervised(port.name, lambda: self._accept(bound, port, listener))))

    async def _accept(self, bound: socket.socket, port: Port, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, address = await loop.sock_accept(bound)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    log.warning("no new connections", reason=error.strerror)
                    await asyncio.sleep(PAUSE_SECONDS)
                continue  # a client that left before it was accepted
            refusal = self._admission.enter()
            if refusal is not None:
                _refuse(connected, refusal, port)
                continue
            OPEN.set(self._admission.total)
            task = asyncio.create_task(self._arrive(connected, str(address[0]), port, listener))
            self._arriving.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection ended by an unforeseen error", exc_info=error)

    async def _arrive(self, connected: socket.socket, address: str, port: Port, listener: Listener) -> None:
        """One connection from accept() to its end."""
        admitted: str | None = None
        ours = True
        try:
            client = await self._client(connected, address, port, listener)
            refusal = self._admission.admit(client.address, self._clock.monotonic())
            if refusal is None and not port.implicit_tls and _has_sent(connected):
                refusal, admitted = EARLY, client.address
            if refusal is not None:
                _refuse(connected, refusal, port)
                return
            admitted = client.address
            ours = False  # asyncio's now: it closes when what was written has been sent; closed by us, its number would be another connection's
            await self._session(await _connection(connected, port, listener), client, listener)
        except TurnedAway as reason:
            TURNED_AWAY.labels(str(reason)).inc()
        finally:
            if ours:
                connected.close()
            self._admission.leave(admitted)
            OPEN.set(self._admission.total)

    async def _client(self, connected: socket.socket, address: str, port: Port, listener: Listener) -> Client:
        if not port.proxy:
            return Client(address)
        parsed = ipaddress.ip_address(address.partition("%")[0])
        if not any(parsed.version == network.version and parsed in network for network in self._proxies):
            log.warning("a connection past the load balancer is refused", client=address, listener=port.name)
            raise TurnedAway("no-proxy")
        try:
            async with asyncio.timeout(listener.services.deadlines.proxy):
                found = await _header(connected)
        except (proxy.BadHeader, ConnectionClosed, OSError, TimeoutError) as error:
            log.warning("no PROXY header from the load balancer", proxy=address, listener=port.name, reason=str(error) or type(error).__name__)
            raise TurnedAway("bad-proxy-header") from error
        # What the load balancer says on its own account has its address, but never the rights of a client that is known by it.
        return Client(found.address) if found.address is not None else Client(address, known_by_address=False)

    async def _session(self, connection: Connection, client: Client, listener: Listener) -> None:
        session = Session(connection, listener, client)
        task = asyncio.current_task()
        assert task is not None
        self._arriving.discard(task)
        self._sessions[session] = task
        try:
            await session.run()
        finally:
            del self._sessions[session]

    async def close(self) -> None:
        """Accepts nobody any more. Idempotent."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for bound in self._sockets:
            bound.close()

    async def drain(self, seconds: float) -> None:
        """Closes, lets transactions finish, cuts the rest after `seconds` and says how many."""
        await self.close()
        for task in list(self._arriving):
            task.cancel()
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


async def _bind(port: Port) -> socket.socket:
    (family, kind, protocol, _, where), *_ = await asyncio.get_running_loop().getaddrinfo(port.address, port.port, type=socket.SOCK_STREAM)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port.shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(where)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


async def _header(connected: socket.socket) -> proxy.Source:
    """Reads the PROXY header and nothing behind it."""
    loop, data = asyncio.get_running_loop(), b""
    while missing := proxy.need(data):
        more = await loop.sock_recv(connected, missing)
        if not more:
            raise ConnectionClosed
        data += more
    return proxy.source(data)


async def _connection(connected: socket.socket, port: Port, listener: Listener) -> Connection:
    """The connection, after its handshake where TLS is implicit."""
    context = listener.tls() if port.implicit_tls else None
    if port.implicit_tls and context is None:
        raise TurnedAway("no-certificate")
    seconds = listener.services.deadlines.tls if context is not None else None
    connection = Connection()
    try:
        # What this returns is not used: with TLS uvloop gives its own protocol instead of ours.
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, connected, ssl=context, ssl_handshake_timeout=seconds)
    except (ssl.SSLError, OSError) as error:
        raise TurnedAway("tls-failed" if context is not None else "lost") from error
    return connection


def _has_sent(connected: socket.socket) -> bool:
    """Whether the client talks before it is greeted, as programs do that read no replies. Asyncio would tell only after the greeting."""
    try:
        return bool(connected.recv(1, socket.MSG_PEEK))
    except OSError:
        return False  # nothing yet, or gone


def _refuse(connected: socket.socket, refusal: Reply, port: Port) -> None:
    """Says why, where it can be said without a handshake, and closes. Costs no task and waits for nobody."""
    TURNED_AWAY.labels({FULL: "full", EARLY: "early"}.get(refusal, "address")).inc()
    with contextlib.suppress(OSError):
        if not port.implicit_tls:
            connected.setblocking(False)
            connected.send(refusal.encode())
            connected.recv(65536)  # closing with unread octets would reset the connection, and the reply with it
    connected.close()
