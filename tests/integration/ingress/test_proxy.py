"""Behind a load balancer: the PROXY protocol on real sockets, written octet by octet and by a real haproxy."""

import asyncio
import contextlib
import pathlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from postroom_core.documents import Client

from integration.ingress.running import HELLO, Dialogue, Running, domain, free_ports, run

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSION_2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0, 25])
HEADERS = [b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 25\r\n", VERSION_2]
BEHIND: dict[str, Any] = {"proxy_listeners": ("submission", "tls", "relay"), "proxy_networks": ("127.0.0.1/32",)}


def box() -> Any:
    """192.0.2.1 may relay; so may the load balancer's network, which must not help anybody."""
    clients = (Client(name="box", cidrs=("192.0.2.1/32", "127.0.0.0/8"), allowed_senders=("*@d.example",)),)
    return domain(clients=clients)


async def dripping(running: Running, header: bytes, where: str = "relay", source: str = "127.0.0.1") -> Dialogue:
    """Sends the header one octet per segment."""
    reader, writer = await asyncio.open_connection(*running.address(where), local_addr=(source, 0))
    connected = writer.get_extra_info("socket")
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for octet in header:
        writer.write(bytes([octet]))
        await writer.drain()
    return running.dialogue(reader, writer)


@pytest.mark.parametrize("header", HEADERS)
def test_the_client_behind_the_header_is_who_is_known_recorded_and_kept_over_starttls(tmp_path: pathlib.Path, header: bytes) -> None:
    async def scenario(running: Running) -> None:
        client = await dripping(running, header)
        assert (await client.reply()).startswith("220 ")
        assert (await client.ask("EHLO client.test")).startswith("250")
        await client.start_tls()
        assert (await client.ask("EHLO client.test")).startswith("250")
        assert (await client.message(HELLO)).startswith("250")
        ((envelope, headers, _),) = running.spool.messages
        assert envelope.client_address == "192.0.2.1"
        assert b"Received: from client.test ([192.0.2.1])\r\n" in headers

    run(tmp_path, scenario, box(), **BEHIND)


def test_header_and_commands_in_one_segment_are_told_apart(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        reader, writer = await asyncio.open_connection(*running.address("relay"))
        writer.write(HEADERS[1] + b"EHLO early\r\n")
        assert (await running.dialogue(reader, writer).reply()).startswith("554 5.5.0"), "behind the header the rules are as ever: nobody talks first"

    run(tmp_path, scenario, box(), **BEHIND)


def test_implicit_tls_begins_behind_the_header(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        host, port = running.address("tls")
        plain = socket.create_connection((host, port))
        plain.sendall(HEADERS[1])
        plain.setblocking(False)
        client = running.dialogue(*await asyncio.open_connection(sock=plain, ssl=ssl._create_unverified_context(), server_hostname="mta.d.example"))
        assert (await client.reply()).startswith("220 ")
        assert (await client.ask("EHLO client.test")).startswith("250")
        assert (await client.login()).startswith("235")
        assert (await client.message(HELLO)).startswith("250")
        assert running.spool.messages[0][0].client_address == "192.0.2.1"

    run(tmp_path, scenario, box(), **BEHIND)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00"])
def test_the_load_balancers_own_checks_are_answered_and_have_no_rights(tmp_path: pathlib.Path, header: bytes) -> None:
    async def scenario(running: Running) -> None:
        client = await dripping(running, header)
        assert (await client.reply()).startswith("220 ")
        assert (await client.ask("EHLO check")).startswith("250")
        assert (await client.message(HELLO)).startswith("550 5.7.1")

    run(tmp_path, scenario, box(), **BEHIND)


def test_a5_a_header_from_elsewhere_is_never_believed(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await dripping(running, b"", source="127.0.0.9")
        assert await client.reply() == "", "past the load balancer: not a word"
        for header in (b"EHLO x\r\n", b"PROXY TCP4 x y 1 2\r\n", b"\x16\x03\x01" + b"x" * 20):
            assert await (await dripping(running, header)).reply() == ""

    run(tmp_path, scenario, box(), **BEHIND)


def test_a5_where_no_header_is_expected_it_is_no_command(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay")
        assert (await client.ask("PROXY TCP4 127.0.0.2 127.0.0.1 1 25")).startswith("500 5.5.1")
        assert (await client.message(HELLO)).startswith("550 5.7.1")

    run(tmp_path, scenario)


def test_a10_a_header_that_does_not_come_costs_its_sender_the_connection(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        silent, half = await dripping(running, b""), await dripping(running, HEADERS[0][:20])
        assert await silent.reply() == ""
        assert await half.reply() == ""

    run(tmp_path, scenario, box(), **BEHIND, proxy_seconds=0.3)


@contextlib.asynccontextmanager
async def haproxy(folder: pathlib.Path, send: str, target: tuple[str, int]) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    timeouts = "timeout connect 5s\n timeout client 30s\n timeout server 30s"
    (folder / "haproxy.cfg").write_text(
        f"defaults\n mode tcp\n {timeouts}\nlisten mail\n bind 127.0.0.1:{port}\n server one {target[0]}:{target[1]} {send} check\n"
    )
    process = await asyncio.create_subprocess_exec("haproxy", "-db", "-f", str(folder / "haproxy.cfg"), stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield port
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_a_real_haproxy_passes_its_clients_on(tmp_path: pathlib.Path, send: str) -> None:
    async def scenario(running: Running) -> None:
        async with haproxy(tmp_path, send, running.address("relay")) as port:
            client = running.dialogue(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.7", 0)))
            assert (await client.reply()).startswith("220 ")
            assert (await client.ask("EHLO client.test")).startswith("250")
            await client.start_tls()
            assert (await client.ask("EHLO client.test")).startswith("250")
            assert (await client.message(HELLO)).startswith("250")
            assert running.spool.messages[0][0].client_address == "127.0.0.7"

    run(tmp_path, scenario, box(), **BEHIND)
