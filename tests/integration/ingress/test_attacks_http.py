"""A10, A20: clients of the HTTP port that hold places or drip bodies; nobody else notices."""

import asyncio
import base64
import json
import pathlib

import aiohttp
import pytest

from postroom_core.documents import Credential, Domain
from postroom_ingress import api, web

from integration.ingress.running import VERIFIER, Running, domain, free_ports, run

LARGE = 300 * 1024


def tenant(name: str) -> Domain:
    credential = Credential(name="u", username=name, verifiers=(VERIFIER,), allowed_senders=(f"*@{name}.example",))
    return domain(name=f"{name}.example", tenant=name, credentials=(credential,), clients=())


def basic(name: str) -> str:
    return base64.b64encode(f"{name}:p".encode()).decode()


async def submit(running: Running, name: str, octets: int) -> tuple[int, str]:
    """Status and code of a message whose JSON has so many octets."""
    message = {"from": {"address": f"a@{name}.example"}, "to": [{"address": "b@x.example"}], "text": "x" * octets}
    url, login = f"http://{running.settings.listen_http}/v1/messages", {"Authorization": f"Basic {basic(name)}"}
    async with aiohttp.ClientSession(headers=login) as session, session.post(url, json=message) as response:
        return response.status, str((await response.json()).get("code", ""))


async def dripping(running: Running, name: str) -> asyncio.StreamWriter:
    """A large body of which nothing comes after the beginning."""
    host, _, port = running.settings.listen_http.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Basic {basic(name)}\r\n"
    writer.write(f"{head}Content-Length: {LARGE}\r\n\r\n{json.dumps({})[:1]}".encode())
    return writer


def test_a20_large_bodies_of_one_tenant_that_never_end_leave_room_for_others(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LARGE_WAIT_SECONDS", 0.5)

    async def scenario(running: Running) -> None:
        held = [await dripping(running, "a") for _ in range(3)]
        async with asyncio.timeout(20):
            while await submit(running, "a", LARGE) != (503, "451 4.3.2"):
                await asyncio.sleep(0.05)
        assert (await submit(running, "b", LARGE))[0] == 202
        assert (await submit(running, "a", 100))[0] == 202, "small ones need no place"
        for writer in held:
            writer.close()
        async with asyncio.timeout(20):
            while (await submit(running, "a", LARGE))[0] != 202:
                await asyncio.sleep(0.05)

    run(tmp_path, scenario, tenant("a"), tenant("b"), listen_http=f"127.0.0.1:{free_ports(1)[0]}")


def test_a10_connections_beyond_the_limit_are_closed_unheard(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_CONNECTIONS", 5)

    async def scenario(running: Running) -> None:
        host, _, port = running.settings.listen_http.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
        for reader, _ in opened[5:]:
            async with asyncio.timeout(20):
                assert await reader.read() == b""
        for _, writer in opened:
            writer.close()
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await submit(running, "a", 100) == (202, "")
                    break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)

    run(tmp_path, scenario, tenant("a"), listen_http=f"127.0.0.1:{free_ports(1)[0]}")
