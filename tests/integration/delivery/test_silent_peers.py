"""Peers that stall, flood and trick, met by the hop and the session alone with short deadlines (A19, F11): the time of every wait is bounded."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from postroom_core.documents import Pool
from postroom_core.testing.certificate import self_signed
from postroom_core.testing.dns import DnsServer
from postroom_core.testing.faults import Endless, Hang, Rule, script
from postroom_core.testing.sink import Sink
from postroom_delivery.outcome import Bounced, Deferred
from postroom_delivery.session import Deadlines, Host, Session, TlsFailed

from integration.delivery.hops import hops_for

POOL = Pool(name="p")
SHORT = Deadlines(connect=1, greeting=0.3, command=0.3, data=0.3, block=0.3, final=0.3, tls=0.3, quit=0.1)
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(behaviour: Peer) -> AsyncIterator[int]:
    """A server that behaves as told; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await behaviour(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def opened(port: int) -> tuple[Session | Deferred | Bounced, float]:
    """What comes of a hop to one host at `port`, and how long it took."""
    async with DnsServer() as dns:
        dns.set("x.example", "MX", ["10 mx.test."])
        dns.set("mx.test", "A", ["127.0.0.1"])
        hops = hops_for(dns, port, deadlines=SHORT)
        started = time.monotonic()
        result = await hops.open(POOL, "x.example")
        return result, time.monotonic() - started


def test_the_deadlines_are_those_of_the_standard() -> None:
    """RFC 5321 section 4.5.3.2; a shorter wait after the dot sends messages twice."""
    deadlines = Deadlines()
    assert (deadlines.command, deadlines.data, deadlines.block, deadlines.final) == (300, 120, 180, 600)


@pytest.mark.parametrize("rule", [Rule("CONNECT", Hang()), Rule("EHLO", Hang()), Rule("EHLO", Endless()), Rule("EHLO", Endless(b"2" * 1000))])
def test_a_peer_that_says_nothing_or_never_ends_is_left_within_the_deadline(rule: Rule) -> None:
    async def scenario() -> None:
        async with Sink(script=script([rule])) as sink:
            result, seconds = await opened(sink.port)
            assert isinstance(result, Deferred)
            assert seconds < 3

    asyncio.run(scenario())


def test_a_reply_that_drips_an_octet_at_a_time_is_bounded_as_a_whole() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for octet in b"220 " + b"x" * 10_000:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async def scenario() -> None:
        async with peer(drip) as port:
            result, seconds = await opened(port)
            assert isinstance(result, Deferred)
            assert "in time" in result.cause.text
            assert seconds < 2

    asyncio.run(scenario())


def test_two_thousand_lines_of_ehlo_are_a_flood() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-X\r\n" * 2000 + b"250 Y\r\n")
        await writer.drain()
        await reader.readline()

    async def scenario() -> None:
        async with peer(flood) as port:
            result, _ = await opened(port)
            assert isinstance(result, Deferred)
            assert "without end" in result.cause.text

    asyncio.run(scenario())


def injecting(after: bytes) -> Peer:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 2.0.0 go ahead\r\n" + after)
        await writer.drain()
        with contextlib.suppress(ConnectionError):
            await writer.start_tls(self_signed("mx.test").server_context())
            await reader.readline()

    return behaviour


def test_replies_in_clear_behind_the_answer_to_starttls_are_never_read_as_replies_in_tls() -> None:
    async def scenario() -> None:
        async with peer(injecting(b"250-injected\r\n250 AUTH PLAIN\r\n")) as port:
            session = await Session.open(Host("mx.test", "127.0.0.1", port), SHORT)
            await session.reply(1)
            await session.hello("me.example")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with pytest.raises(TlsFailed, match="in clear behind"):
                await session.start_tls(context, "me.example", "mx.test", lambda chain: "")
            assert "AUTH" not in session.extensions
            assert not session.in_order

    asyncio.run(scenario())


def test_a_cancelled_wait_for_a_reply_ends_the_use_of_the_session() -> None:
    """The late reply would be paired with the next command."""

    async def scenario() -> None:
        async with Sink(script=script([Rule("NOOP", Hang())])) as sink:
            session = await Session.open(Host("mx.test", "127.0.0.1", sink.port), SHORT)
            await session.reply(1)
            await session.hello("me.example")
            before = session.usable
            with pytest.raises(TimeoutError):
                await session.ask("NOOP", 0.05)
            assert (before, session.usable) == (True, False)
            session.abort()

    asyncio.run(scenario())
