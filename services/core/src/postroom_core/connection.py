"""A byte stream for line protocols: what ingress, delivery and the sink speak SMTP over.

One object per TCP connection, plain or TLS. It reads lines and blocks, writes with back-pressure, and turns a plain connection into a TLS one.
It decides nothing about the protocol and sets no deadlines: callers wrap every await in asyncio.timeout.

Why not asyncio's StreamReader: STARTTLS must be able to see and drop what was buffered in clear (RFC 3207 section 4.2, CVE-2021-38371), the
DATA reader wants whole blocks instead of lines, and the limit of a line must not be the limit of the buffer.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

# Reading pauses above this; one connection then holds at most this plus what the kernel hands over at once (256 KiB).
HIGH_WATER = 256 * 1024


class LineTooLong(Exception):
    """The peer sent more than `limit` octets without CRLF; the octets were dropped up to the end of that line."""


class ConnectionClosed(Exception):
    """The peer closed, or the connection broke; nothing further will be read."""


class Connection(asyncio.Protocol):
    """Create by `connect`, or hand `accept(handler)` to loop.create_server as its protocol factory."""

    def __init__(self, on_connect: Callable[["Connection"], None] | None = None) -> None:
        self._on_connect = on_connect
        self._buffer = bytearray()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = False
        self._lost = asyncio.Event()
        self._discarding = False
        self._paused = False
        self.transport: asyncio.Transport | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        if self._on_connect is not None:
            callback, self._on_connect = self._on_connect, None
            callback(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > HIGH_WATER and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._readable.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._readable.set()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._lost.set()
        self._readable.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Reading

    async def line(self, limit: int) -> bytes:
        """The next line without its CRLF. A bare CR or LF does not end a line (RFC 5321 section 2.3.8).

        `limit` counts octets with CRLF. Raises LineTooLong after the whole line has gone by, ConnectionClosed at the end.
        """
        searched = 0
        while (line := self.line_now(limit, searched)) is None:
            if len(self._buffer) > limit:  # keep a last CR: its LF may be on the way
                self._discarding = True
                self._consume(len(self._buffer) - self._buffer.endswith(b"\r"))
            searched = max(0, len(self._buffer) - 1)
            await self._more()
        return line

    def line_now(self, limit: int, searched: int = 0) -> bytes | None:
        """The next line if it has arrived whole, else None: nothing to wait for and no deadline to set. Raises LineTooLong as `line`.

        `searched` is how much of the buffer is known to hold no line end.
        """
        end = self._buffer.find(b"\r\n", searched)
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        self._consume(end + 2)
        if self._discarding or end + 2 > limit:
            self._discarding = False
            raise LineTooLong
        return line

    async def arrival(self) -> None:
        """Returns when something can be read. Raises ConnectionClosed at the end."""
        while not self._buffer:
            await self._more()

    async def block(self, most: int | None = None) -> bytes:
        """What has arrived, at least one octet and at most `most`. Raises ConnectionClosed at the end."""
        while not self._buffer:
            await self._more()
        data = bytes(self._buffer[:most])
        self._consume(len(data))
        return data

    def unread(self, data: bytes) -> None:
        """Puts octets back in front: what `block` returned beyond the end of a message."""
        self._buffer[:0] = data
        if self._buffer:
            self._readable.set()

    @property
    def buffered(self) -> int:
        """Octets that have arrived and were not read: what a pipelining or an early-talking peer already sent."""
        return len(self._buffer)

    def discard_buffered(self) -> None:
        """Drops what has arrived and was not read."""
        self._consume(len(self._buffer))

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        if self._paused and len(self._buffer) <= HIGH_WATER // 2 and self.transport is not None and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    async def _more(self) -> None:
        if self._ended:
            raise ConnectionClosed
        self._readable.clear()
        await self._readable.wait()

    # Writing

    def write(self, data: bytes) -> None:
        """Queues octets; `drain` bounds how many. After the end of the connection they are dropped."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        """Returns when the send buffer is below its limit. Raises ConnectionClosed when the peer is gone."""
        if not self.drained():
            await self._writable.wait()

    def drained(self) -> bool:
        """Whether the send buffer is below its limit now: nothing to wait for and no deadline to set. Raises ConnectionClosed as `drain`."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionClosed
        return self._writable.is_set()

    # TLS and the end

    async def start_tls(self, context: ssl.SSLContext, *, server_side: bool, hostname: str | None = None, handshake_seconds: float) -> None:
        """Turns the connection into a TLS one. What had arrived in clear is dropped first (RFC 3207 section 4.2).

        Raises ssl.SSLError, OSError or ConnectionClosed when the handshake fails; the connection is then of no further use.
        """
        if self.transport is None or self._ended:
            raise ConnectionClosed
        self.discard_buffered()
        transport = await asyncio.get_running_loop().start_tls(
            self.transport, self, context, server_side=server_side, server_hostname=hostname, ssl_handshake_timeout=handshake_seconds
        )
        if transport is None:
            raise ConnectionClosed
        self.transport = transport

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS state, None in clear."""
        return self.transport.get_extra_info("ssl_object") if self.transport is not None else None

    @property
    def tls_text(self) -> str:
        """Protocol and cipher for people, "" in clear."""
        tls = self.tls
        cipher = tls.cipher() if tls is not None else None
        return f"{cipher[1]} {cipher[0]}" if cipher else ""

    @property
    def peer(self) -> str:
        """The peer's address without its port, "" when unknown."""
        name = self.transport.get_extra_info("peername") if self.transport is not None else None
        return str(name[0]) if name else ""

    @property
    def closed(self) -> bool:
        """Whether the peer has closed or the connection broke; octets that arrived before may still be unread."""
        return self._ended

    def close(self) -> None:
        """Closes after what was written has been sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Closes at once; unsent octets are lost."""
        if self.transport is not None:
            self.transport.abort()

    async def end(self, seconds: float) -> None:
        """Closes, and returns when the connection is gone. A peer that does not take what was written within `seconds` loses it."""
        self.close()
        try:
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        except TimeoutError:
            self.abort()


async def connect(
    address: str, port: int, *, context: ssl.SSLContext | None = None, hostname: str | None = None, source: str | None = None
) -> Connection:
    """Opens a connection to a literal address; names are never resolved here, so that what was vetted is what is dialled.

    `context` makes it TLS from the first octet. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    local = (source, 0) if source else None
    _, connection = await loop.create_connection(
        Connection, address, port, ssl=context, server_hostname=hostname if context else None, local_addr=local
    )
    return connection
