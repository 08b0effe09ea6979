"""The life of ingress: readiness by what it depends on, several processes on the same ports, the drain of all of them."""

import asyncio
import os
import pathlib
import signal
import sys
from typing import Any

import aiohttp
import pytest

from postroom.v1 import signer_pb2_grpc, spool_pb2_grpc
from postroom_core import rpc
from postroom_core.directory import publish

from integration.ingress.running import HELLO, Dialogue, FakeSigner, FakeSpool, Running, certificate, domain, free_ports, run

PROCESSES = 2


async def get(where: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{where}{path}") as response:
        return response.status, await response.text()


async def becomes(where: str, status: int) -> str:
    """The text of /readyz once it has this status."""
    async with asyncio.timeout(60):  # a busy machine starts a process in ten seconds
        while True:
            try:
                answer = await get(where, "/readyz")
            except aiohttp.ClientError:
                answer = (0, "")
            if answer[0] == status:
                return answer[1]
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("service", ["signer", "delivery"])
def test_ingress_is_ready_only_while_signer_and_delivery_serve_and_answers_4xx_meanwhile(tmp_path: pathlib.Path, service: str) -> None:
    async def scenario(running: Running) -> None:
        http = running.settings.http
        await becomes(http, 200)
        assert await get(http, "/generation/d.example") == (200, "0\n")
        assert (await get(http, "/generation/other.example"))[0] == 404
        client = await running.authenticated()
        stop, start = (getattr(running, f"{verb}_{service}") for verb in ("stop", "start"))
        await stop()
        assert service in await becomes(http, 503)
        assert (await client.message(HELLO)).startswith("451 4.3.0")
        assert (await client.ask("RSET")).startswith("250")
        await start()
        await becomes(http, 200)
        assert (await client.message(HELLO)).startswith("250")

    run(tmp_path, scenario, http=f"127.0.0.1:{free_ports(1)[0]}")


async def _several(folder: pathlib.Path) -> None:
    submission, http = (f"127.0.0.1:{port}" for port in free_ports(2))
    spool, signer = FakeSpool(), FakeSigner()
    publish(folder / "directory", [domain(generation=7), certificate()], "1")
    values = {"DIRECTORY": folder / "directory", "HOSTNAME": "mta.d.example", "LISTEN_SUBMISSION": submission, "HTTP": http}
    values |= {"SIGNER_TARGET": f"unix:{folder}/signer.sock", "DELIVERY_TARGET": f"unix:{folder}/delivery.sock", "INGRESS_PROCESSES": PROCESSES}
    environment = {**os.environ, **{f"POSTROOM_{name}": str(value) for name, value in values.items()}}
    async with (
        rpc.serve(f"unix:{folder}/signer.sock", lambda s: signer_pb2_grpc.add_SignerServicer_to_server(signer, s), grace_seconds=0),
        rpc.serve(f"unix:{folder}/delivery.sock", lambda s: spool_pb2_grpc.add_SpoolServicer_to_server(spool, s), grace_seconds=0),
    ):
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "postroom_ingress", env=environment)
        try:
            await becomes(http, 200)
            assert await get(http, "/generation/d.example") == (200, "7\n"), "in force in every process"
            assert (await get(http, "/generation/other.example"))[0] == 404
            clients = [await _login(submission) for _ in range(8)]
            assert [(await client.message(HELLO))[:3] for client in clients] == ["250"] * 8
            text = (await get(http, "/metrics"))[1]
            assert 'postroom_ingress_messages_total{outcome="2xx"} 8.0\n' in text, "added up over the processes"
            assert "postroom_ingress_open_sessions 8.0\n" in text
            for command in ("MAIL FROM:<a@d.example>", "RCPT TO:<b@x.example>", "DATA"):
                await clients[0].ask(command)
            process.send_signal(signal.SIGTERM)
            assert (await clients[1].reply()).startswith("421 4.3.2")
            clients[0].send(HELLO + b".\r\n")
            assert (await clients[0].reply()).startswith("250")
            assert (await clients[0].reply()).startswith("421 4.3.2")
            async with asyncio.timeout(60):
                assert await process.wait() == 0
            assert len(spool.messages) == 9
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _login(where: str) -> Dialogue:
    address, _, port = where.rpartition(":")
    client = Dialogue(*await asyncio.open_connection(address, int(port)))
    assert (await client.reply()).startswith("220")
    await client.ask("EHLO client.test")
    await client.start_tls()
    await client.ask("EHLO client.test")
    assert (await client.login()).startswith("235")
    return client


@pytest.mark.timeout(300)
def test_several_processes_share_the_ports_add_up_their_metrics_and_drain_together(tmp_path: pathlib.Path) -> None:
    asyncio.run(_several(tmp_path))


def test_a_second_ingress_without_processes_cannot_take_the_port(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        values: dict[str, Any] = {"DIRECTORY": tmp_path / "directory", "HOSTNAME": "x", "LISTEN_RELAY": running.settings.listen_relay}
        values |= {"SIGNER_TARGET": running.settings.signer_target, "DELIVERY_TARGET": running.settings.delivery_target}
        environment = {**os.environ, **{f"POSTROOM_{name}": str(value) for name, value in values.items()}}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postroom_ingress", env=environment, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
        assert process.returncode == 3
        assert b"cannot listen on 127.0.0.1:" in errors

    run(tmp_path, scenario)
