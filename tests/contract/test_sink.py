"""The kit's sink, spoken to by foreign clients (smtplib, aiosmtplib), and the same assertions against aiosmtpd, which is a real server."""

import asyncio
import contextlib
import smtplib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import aiosmtplib
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as AiosmtpdSession

from postroom_core.connection import Connection, ConnectionClosed, connect
from postroom_core.testing.certificate import self_signed
from postroom_core.testing.faults import Drop, Endless, GarbageTls, Hang, Rule, Wait, script
from postroom_core.testing.sink import Sink

CONTENT = b"From: a@example.org\r\nSubject: x\r\n\r\n.dot\r\n..two dots\r\n\r\nlast\r\n"


@dataclass
class Peer:
    """A running server and what it got: (reverse path, recipients, content) each."""

    port: int
    got: Callable[[], list[tuple[str, list[str], bytes]]]


@contextlib.contextmanager
def the_sink() -> Iterator[Peer]:
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    sink = Sink()

    async def main() -> None:
        async with sink:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert started.wait(10)
    try:
        yield Peer(sink.port, lambda: [(message.reverse_path, list(message.recipients), message.content) for message in sink.messages])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
    assert sink.violations == []


@contextlib.contextmanager
def aiosmtpd() -> Iterator[Peer]:
    got: list[tuple[str, list[str], bytes]] = []

    class Keep:
        async def handle_DATA(self, server: SMTP, session: AiosmtpdSession, envelope: Envelope) -> str:
            assert isinstance(envelope.content, bytes)
            reverse_path = str(envelope.mail_from).replace("<>", "")  # its spelling of the null reverse-path
            got.append((reverse_path, [str(address) for address in envelope.rcpt_tos], envelope.content))
            return "250 OK"

    class OnFreePort(Controller):
        def _trigger_server(self) -> None:  # connects to port 0 otherwise
            assert isinstance(self.server, asyncio.Server)
            self.port = self.server.sockets[0].getsockname()[1]
            super()._trigger_server()  # type: ignore[no-untyped-call]

    controller = OnFreePort(Keep(), hostname="127.0.0.1", port=0)
    controller.start()
    try:
        yield Peer(controller.port, lambda: got)
    finally:
        controller.stop()


both = pytest.mark.parametrize("server", [the_sink, aiosmtpd])
Server = Callable[[], contextlib.AbstractContextManager[Peer]]


@both
def test_smtplib_delivers_octet_for_octet(server: Server) -> None:
    with server() as peer:
        with smtplib.SMTP("127.0.0.1", peer.port, timeout=10) as client:
            client.sendmail("a@example.org", ["b@example.net", "c@example.net"], CONTENT)
            client.sendmail("", ["d@example.net"], b"second\r\n")
        assert peer.got() == [("a@example.org", ["b@example.net", "c@example.net"], CONTENT), ("", ["d@example.net"], b"second\r\n")]


@both
def test_aiosmtplib_delivers_octet_for_octet(server: Server) -> None:
    with server() as peer:

        async def main() -> None:
            client = aiosmtplib.SMTP(hostname="127.0.0.1", port=peer.port, timeout=10, start_tls=False)
            async with client:
                await client.sendmail("a@example.org", ["b@example.net"], CONTENT)

        asyncio.run(main())
        assert peer.got() == [("a@example.org", ["b@example.net"], CONTENT)]


@both
def test_commands_out_of_order_and_unknown_ones_are_refused_and_the_session_goes_on(server: Server) -> None:
    with server() as peer, smtplib.SMTP("127.0.0.1", peer.port, timeout=10) as client:
        assert client.docmd("RCPT", "TO:<b@example.net>")[0] == 503
        assert client.docmd("DATA")[0] == 503
        assert client.docmd("XYZZY")[0] == 500
        client.ehlo()
        assert client.docmd("NOOP")[0] == 250
        assert client.docmd("RSET")[0] == 250
        client.sendmail("a@example.org", "b@example.net", b"x\r\n")
        assert len(peer.got()) == 1


async def dialogue(connection: Connection, *lines: bytes) -> list[bytes]:
    """Sends the lines one by one; returns the last line of each reply."""
    replies = []
    for line in lines:
        connection.write(line + b"\r\n")
        replies.append(await final_line(connection))
    return replies


async def final_line(connection: Connection) -> bytes:
    async with asyncio.timeout(10):
        while (line := await connection.line(2000))[3:4] == b"-":
            pass
    return line


async def greeted(sink: Sink) -> Connection:
    connection = await connect("127.0.0.1", sink.port)
    assert (await final_line(connection)).startswith(b"220")
    return connection


ENVELOPE = (b"EHLO me.example", b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.net>", b"DATA")


def test_starttls_and_parameters_are_recorded() -> None:
    async def main() -> None:
        certificate = self_signed("localhost")
        async with Sink(tls=certificate) as sink:
            client = aiosmtplib.SMTP(hostname="localhost", port=sink.port, start_tls=True, tls_context=certificate.client_context(), timeout=10)
            async with client:
                await client.mail("a@example.org", options=["BODY=8BITMIME", "RET=HDRS"])
                await client.rcpt("b@example.net", options=["NOTIFY=NEVER"])
                await client.data("caf\xe9\r\n".encode())
            (message,) = await sink.wait_for(1)
            assert message.tls.startswith("TLSv1.")
            assert message.mail_parameters == {"BODY": "8BITMIME", "RET": "HDRS"}
            assert message.rcpt_parameters == ({"NOTIFY": "NEVER"},)
            assert sink.violations == []

    asyncio.run(main())


def test_pipelined_commands_are_answered_in_order_and_only_a_group_that_is_allowed_is_no_violation() -> None:
    async def main() -> None:
        async with Sink() as sink:
            connection = await greeted(sink)
            await dialogue(connection, ENVELOPE[0])
            connection.write(b"\r\n".join(ENVELOPE[1:]) + b"\r\n")
            assert [(await final_line(connection))[:3] for _ in range(3)] == [b"250", b"250", b"354"]
            connection.write(b"one\r\n.\r\n" + b"\r\n".join(ENVELOPE[1:]) + b"\r\n")
            assert [(await final_line(connection))[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
            assert sink.violations == []
            connection.write(b"two\r\n.\r\nNOOP\r\nRSET\r\n")
            assert [(await final_line(connection))[:3] for _ in range(3)] == [b"250"] * 3
            assert sink.violations == ["pipelined after NOOP, which must end a group"]
            connection.close()
        async with Sink(extensions=()) as sink:
            connection = await greeted(sink)
            await dialogue(connection, ENVELOPE[0])
            connection.write(b"\r\n".join(ENVELOPE[1:]) + b"\r\n")
            assert [(await final_line(connection))[:3] for _ in range(3)] == [b"250", b"250", b"354"]
            assert sink.violations[0] == "pipelined after MAIL, but PIPELINING was not offered"
            connection.close()

    asyncio.run(main())


def test_bdat_takes_exactly_the_octets_of_its_chunks_and_knows_no_dots() -> None:
    async def main() -> None:
        async with Sink(extensions=("CHUNKING", "BINARYMIME")) as sink:
            connection = await greeted(sink)
            await dialogue(connection, ENVELOPE[0], ENVELOPE[1] + b" BODY=BINARYMIME", ENVELOPE[2])
            connection.write(b"BDAT 5\r\na\n\0.\r")
            assert (await final_line(connection)).startswith(b"250")
            connection.write(b"BDAT 8 LAST\r\n\n.\r\nQUIT")
            assert (await final_line(connection)).startswith(b"250")
            assert sink.messages[0].content == b"a\n\0.\r\n.\r\nQUIT"
            assert (await dialogue(connection, b"QUIT"))[0].startswith(b"221")
            connection.write(b"BDAT -1\r\n")
            assert sink.violations == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("content", "violation"),
    [
        (b"a\nb\r\n", "bare LF in content"),
        (b"a\rb\r\n", "bare CR in content"),
        (b"a\0b\r\n", "NUL in content"),
        (b"caf\xc3\xa9\r\n", "octets above 127 without BODY=8BITMIME"),
        (b"a\r\n.b\r\n", "a dot at the start of a line was not doubled"),
        (b"short\r\n" + b"x" * 999 + b"\r\n", "content line over 998 octets"),
    ],
)
def test_each_fault_of_a_client_in_content_is_named(content: bytes, violation: str) -> None:
    async def main() -> None:
        async with Sink() as sink:
            connection = await greeted(sink)
            await dialogue(connection, *ENVELOPE)
            connection.write(content + b".\r\n")
            assert (await final_line(connection)).startswith(b"250")
            assert sink.violations == [violation]
            connection.close()

    asyncio.run(main())


def test_lines_of_998_octets_are_no_violation() -> None:
    async def main() -> None:
        async with Sink() as sink:
            connection = await greeted(sink)
            await dialogue(connection, *ENVELOPE)
            connection.write((b"x" * 998 + b"\r\n" + b"y" * 70 + b"\r\n") * 50 + b".\r\n")
            await final_line(connection)
            assert sink.violations == []
            connection.close()

    asyncio.run(main())


def test_replies_follow_the_rules_by_session_message_recipient_and_count() -> None:
    async def main() -> None:
        rules = [
            Rule("CONNECT", b"554 5.7.1 Go away", session=1),
            Rule("RCPT", b"450 4.2.1 Later", argument="late@", times=1),
            Rule("RCPT", b"452 4.5.3 Enough", accepted=2),
            Rule(".", b"451 4.3.0 Not this one", message=1),
        ]
        async with Sink(script=script(rules)) as sink:
            first = await connect("127.0.0.1", sink.port)
            assert await final_line(first) == b"554 5.7.1 Go away"
            first.close()
            connection = await greeted(sink)
            await dialogue(connection, *ENVELOPE[:2])
            replies = await dialogue(connection, *(b"RCPT TO:<%b@x.example>" % name for name in (b"late", b"LATE", b"b", b"c")), b"DATA")
            assert [reply[:3] for reply in replies] == [b"450", b"250", b"250", b"452", b"354"]
            assert await dialogue(connection, b"x\r\n.") == [b"451 4.3.0 Not this one"]
            assert await dialogue(connection, *ENVELOPE, b"y\r\n.") != []
            (message,) = await sink.wait_for(1)
            assert (message.content, message.session, message.number) == (b"y\r\n", 2, 1)
            connection.close()

    asyncio.run(main())


def test_a_drop_at_the_dot_keeps_the_message_only_when_it_was_accepted() -> None:
    async def main() -> None:
        for action, kept in ((Drop(), 0), (Drop(b"250 2.0.0 Yes"), 1), (Drop(b"", reset=True), 0)):
            async with Sink(script=script([Rule(".", action)])) as sink:
                connection = await greeted(sink)
                await dialogue(connection, *ENVELOPE)
                connection.write(b"x\r\n.\r\n")
                with pytest.raises(ConnectionClosed):
                    while True:
                        await final_line(connection)
                assert len(sink.messages) == kept
                connection.close()

    asyncio.run(main())


def test_421_in_mid_session_closes_and_a_wait_replies_when_its_event_comes() -> None:
    async def main() -> None:
        event = asyncio.Event()
        async with Sink(script=script([Rule("MAIL", Wait(event)), Rule("RCPT", b"421 4.3.2 Closing")])) as sink:
            connection = await greeted(sink)
            await dialogue(connection, ENVELOPE[0])
            connection.write(ENVELOPE[1] + b"\r\n")
            reply = asyncio.ensure_future(final_line(connection))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not reply.done()
            event.set()
            assert (await reply)[:3] == b"250"
            assert await dialogue(connection, ENVELOPE[2]) == [b"421 4.3.2 Closing"]
            with pytest.raises(ConnectionClosed):
                await final_line(connection)

    asyncio.run(main())


def test_a_hang_says_nothing_and_an_endless_reply_never_ends_and_both_end_with_the_client() -> None:
    async def main() -> None:
        async with Sink(script=script([Rule("EHLO", Hang(), session=1), Rule("EHLO", Endless(), session=2)])) as sink:
            hanging = await greeted(sink)
            hanging.write(b"EHLO me\r\n")
            endless = await greeted(sink)
            endless.write(b"EHLO me\r\n")
            seen = 0
            while seen < 100_000:
                seen += len(await endless.block())
            assert hanging.buffered == 0
            hanging.close()
            endless.abort()
            async with asyncio.timeout(10):
                while sink.open_sessions:
                    await asyncio.sleep(0)

    asyncio.run(main())


def test_a_garbage_handshake_breaks_tls_and_a_refused_starttls_leaves_the_session_usable() -> None:
    async def main() -> None:
        rules = [Rule("STARTTLS", b"454 4.7.0 No TLS now", session=1), Rule("TLS", GarbageTls(), session=2)]
        async with Sink(script=script(rules), extensions=("STARTTLS",)) as sink:
            refused = await greeted(sink)
            assert [reply[:3] for reply in await dialogue(refused, b"EHLO me", b"STARTTLS", b"NOOP")] == [b"250", b"454", b"250"]
            garbage = await greeted(sink)
            await dialogue(garbage, b"EHLO me", b"STARTTLS")
            with pytest.raises((ssl.SSLError, OSError)):
                await garbage.start_tls(ssl.create_default_context(), server_side=False, hostname="localhost", handshake_seconds=5)
            refused.close()

    asyncio.run(main())
