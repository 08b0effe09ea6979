"""A9, A10, A20: clients that hold places, drip, and send without end; each loses its place in time, nobody else notices, memory stays bounded."""

import asyncio
import contextlib
import os
import pathlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from integration.ingress.running import HELLO, Dialogue, Running, run

SHORT: dict[str, Any] = {"idle_seconds": 1.0, "tls_seconds": 1.0, "grace_seconds": 0.5, "least_rate": 100_000, "error_seconds": 0.0}


async def _idle(running: Running) -> Dialogue:
    return await running.connect("relay")


async def _half_a_command(running: Running) -> Dialogue:
    client = await running.connect("relay")
    client.send(b"MAIL FR")
    return client


async def _no_handshake(running: Running) -> Dialogue:
    return running.dialogue(*await asyncio.open_connection(*running.address("tls")))


async def _no_handshake_after_starttls(running: Running) -> Dialogue:
    client = await running.connect()
    assert (await client.ask("STARTTLS")).startswith("220")
    return client


async def _no_answer_to_auth(running: Running) -> Dialogue:
    client = await running.connect("tls")
    assert (await client.ask("AUTH LOGIN")).startswith("334")
    return client


async def _open(running: Running) -> Dialogue:
    client = await running.connect("relay", "127.0.0.2")
    await client.ask("MAIL FROM:<a@d.example>")
    await client.ask("RCPT TO:<b@x.example>")
    return client


async def _dripping_data(running: Running) -> Dialogue:
    client = await _open(running)
    assert (await client.ask("DATA")).startswith("354")
    client.drip(HELLO * 100)
    return client


async def _dripping_chunk(running: Running) -> Dialogue:
    client = await _open(running)
    client.send(b"BDAT 100000\r\n")
    client.drip(HELLO * 100)
    return client


async def _dripping_unwanted_chunk(running: Running) -> Dialogue:
    client = await running.connect("relay", "127.0.0.2")
    client.send(b"BDAT 100000\r\n")
    client.drip(HELLO * 100)
    return client


SLOW: list[Callable[[Running], Awaitable[Dialogue]]] = [
    *(_idle, _half_a_command, _no_handshake, _no_handshake_after_starttls, _no_answer_to_auth),
    *(_dripping_data, _dripping_chunk, _dripping_unwanted_chunk),
]


def test_a10_whoever_is_too_slow_at_any_stage_loses_the_connection_and_leaves_no_place_taken(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        clients = [await slow(running) for slow in SLOW for _ in range(3)]
        assert len(clients) > 20
        quick = await running.connect("relay", "127.0.0.2")
        for _ in range(5):
            assert (await quick.message(HELLO)).startswith("250"), "others are served meanwhile"
        endings = [await client.last_words() for client in clients]
        assert set(endings) <= {"421 4.4.2 Timeout, closing the connection", ""}
        again = [await running.connect("relay", "127.0.0.2") for _ in range(20)]
        assert len(again) == 20
        assert (await again[0].message(HELLO)).startswith("250")

    run(tmp_path, scenario, max_connections=40, **SHORT)


def test_a20_one_address_cannot_take_the_places_of_others(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        noisy = [await running.connect("relay", "127.0.0.9") for _ in range(5)]
        refused = await running.raw("relay", "127.0.0.9")
        assert (await refused.reply()).startswith("421 4.7.0")
        quiet = await running.connect("relay", "127.0.0.2")
        assert (await quiet.message(HELLO)).startswith("250")
        noisy[0].close()
        async with asyncio.timeout(10):
            while not (await (await running.raw("relay", "127.0.0.9")).reply()).startswith("220"):
                await asyncio.sleep(0.02)

    run(tmp_path, scenario, max_connections_per_address=5)


def test_a20_new_connections_of_one_address_have_a_rate(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        replies = [(await (await running.raw("relay", "127.0.0.9")).reply())[:9] for _ in range(6)]
        assert replies.count("421 4.7.0") == 3
        assert (await (await running.raw("relay", "127.0.0.2")).reply()).startswith("220")

    run(tmp_path, scenario, max_connections_per_minute=3)


@pytest.mark.parametrize("where", ["submission", "relay"])
def test_a9_a_line_without_end_is_dropped_as_it_comes(tmp_path: pathlib.Path, where: str) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect(where)
        process = psutil.Process(os.getpid())
        before = process.memory_info().rss
        for _ in range(200):
            client.send(b"x" * 100_000)
            await client.drain()
        client.send(b"\r\n")
        assert (await client.reply()).startswith("500 5.5.2")
        assert (await client.ask("NOOP")).startswith("250")
        assert process.memory_info().rss - before < 20_000_000

    run(tmp_path, scenario)


def test_a9_recipients_without_end_are_refused_and_the_message_goes_to_those_that_were_taken(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay", "127.0.0.2")
        await client.ask("MAIL FROM:<a@d.example>")
        codes: dict[str, int] = {}
        for start in range(0, 20_000, 500):
            client.send(b"".join(b"RCPT TO:<b%d@x.example>\r\n" % number for number in range(start, start + 500)))
            for _ in range(500):
                code = (await client.reply())[:9]
                codes[code] = codes.get(code, 0) + 1
        assert codes == {"250 2.1.5": 1000, "452 4.5.3": 19_000}
        assert (await client.message_data(HELLO)).startswith("250")
        assert len(running.spool.messages[0][0].recipients) == 1000

    run(tmp_path, scenario)


def test_a9_a_huge_auth_line_is_refused_and_the_session_goes_on(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("tls")
        assert (await client.ask("AUTH PLAIN " + "A" * 100_000)).startswith("500 5.5")
        assert (await client.ask("AUTH PLAIN")).startswith("334")
        assert (await client.ask("A" * 100_000)).startswith("500 5.5.6")
        assert (await client.login()).startswith("235")

    run(tmp_path, scenario)


def test_a9_deep_mime_and_many_fields_are_refused(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(150))
        assert (await client.message(b"From: a@d.example\r\n" + deep)).startswith("554 5.6.0 The parts of the message")
        assert (await client.message(b"From: a@d.example\r\n" + b"X: y\r\n" * 2000 + b"\r\n")).startswith("554 5.6.0 The header has more than")
        assert (await client.message(HELLO)).startswith("250")
        assert len(running.spool.messages) == 1

    run(tmp_path, scenario)


def test_a9_replies_that_nobody_reads_do_not_pile_up(tmp_path: pathlib.Path) -> None:
    """The client sends commands for ever and never reads: the server stops reading, too."""

    async def scenario(running: Running) -> None:
        deaf = socket.create_connection(running.address("relay"))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        process = psutil.Process(os.getpid())
        await asyncio.sleep(0.1)
        before, sent = process.memory_info().rss, 0
        try:
            async with asyncio.timeout(3):
                while sent < 200_000_000:
                    await asyncio.get_running_loop().sock_sendall(deaf, b"EHLO x\r\n" * 10_000)
                    sent += 80_000
        except (TimeoutError, OSError):
            pass
        assert process.memory_info().rss - before < 50_000_000
        deaf.close()
        assert (await (await running.connect("relay", "127.0.0.2")).message(HELLO)).startswith("250")

    run(tmp_path, scenario, error_seconds=0.0)


@pytest.mark.parametrize("tls", [False, True])
def test_a10_a_client_that_takes_no_reply_loses_its_place_and_leaves_no_descriptor(tmp_path: pathlib.Path, tls: bool) -> None:
    """What is still unsent then keeps neither the session nor the socket alive."""

    def deaf_client(running: Running) -> socket.socket:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(running.address("tls" if tls else "relay"))
        connected = ssl._create_unverified_context().wrap_socket(deaf) if tls else deaf
        connected.settimeout(0.5)
        with contextlib.suppress(OSError):  # until the server takes nothing more
            while True:
                connected.sendall(b"EHLO x\r\n" * 10_000)
        return connected

    async def scenario(running: Running) -> None:
        process = psutil.Process(os.getpid())
        await (await running.connect("relay", "127.0.0.2")).message(HELLO)  # opens the channels to signer and spool
        before = process.num_fds()
        deaf = [await asyncio.to_thread(deaf_client, running) for _ in range(3)]
        async with asyncio.timeout(30):
            while process.num_fds() > before + len(deaf):
                await asyncio.sleep(0.05)
        for connected in deaf:
            connected.close()

    run(tmp_path, scenario, error_seconds=0.0, idle_seconds=1.0)


def test_a10_connections_that_end_in_every_way_leave_no_descriptor(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        await (await running.connect("relay", "127.0.0.2")).message(HELLO)
        process = psutil.Process(os.getpid())
        before = process.num_fds()
        for _ in range(10):
            for where in ("relay", "submission", "tls"):
                plain = socket.create_connection(running.address(where))
                plain.sendall(b"no handshake\r\n")
                plain.close()
            (await running.connect("tls")).abort()
            client = await running.connect()
            assert (await client.ask("STARTTLS")).startswith("220")
            client.send(b"no handshake\r\n")
            await client.last_words()
            quits = await running.connect("tls")
            assert (await quits.ask("QUIT")).startswith("221")
            quits.close()
        async with asyncio.timeout(20):
            while process.num_fds() > before:
                await asyncio.sleep(0.05)

    run(tmp_path, scenario)
