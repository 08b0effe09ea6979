"""Replicas of ingress, one of them of two processes: limits of messages hold exactly over all, those of connections over the processes of one."""

import asyncio
import contextlib
import os
import pathlib
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from postroom.v1 import signer_pb2_grpc, spool_pb2_grpc
from postroom_core import rpc
from postroom_core.directory import publish
from postroom_core.documents import Credential, Limits, Pool

from contract import postgres
from integration.delivery.processes import fleet
from integration.ingress.running import HELLO, VERIFIER, Dialogue, FakeSigner, FakeSpool, certificate, domain, free_ports

pytestmark = pytest.mark.timeout(300)  # a busy machine starts a process in ten seconds


def limited(**limits: int) -> Credential:
    return Credential(name="u", username="u", verifiers=(VERIFIER,), allowed_senders=("*@d.example",), limits=Limits(**limits))


class Replica:
    """An ingress with its processes; its clients."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self._port = port
        self._clients: list[Dialogue] = []

    async def greeting(self, source: str = "127.0.0.1") -> str:
        """Of one more connection, which stays open."""
        self._clients.append(Dialogue(*await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))))
        return await self._clients[-1].reply()

    async def authenticated(self) -> tuple[Dialogue, str]:
        """One more client, and the reply to its AUTH."""
        assert (await self.greeting()).startswith("220")
        client = self._clients[-1]
        await client.ask("EHLO client.test")
        await client.start_tls()
        await client.ask("EHLO client.test")
        return client, await client.login()

    def cut(self) -> None:
        for client in self._clients:
            client.abort()


@contextlib.asynccontextmanager
async def replica(folder: pathlib.Path, delivery: str, processes: int, **changes: Any) -> AsyncIterator[Replica]:
    """Runs until the block ends; the drain must be clean."""
    (port,) = free_ports(1)
    values = {"DIRECTORY": folder / "directory", "HOSTNAME": "mta.d.example", "LISTEN_SUBMISSION": f"127.0.0.1:{port}"}
    values |= {"HTTP": f"127.0.0.1:{free_ports(1)[0]}", "LOG_LEVEL": "warning", "INGRESS_PROCESSES": processes}
    values |= {"SIGNER_TARGET": f"unix:{folder}/signer.sock", "DELIVERY_TARGET": delivery, **changes}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    environment |= {f"POSTROOM_{name}": str(value) for name, value in values.items()}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "postroom_ingress", env=environment)
    made = Replica(process, port)
    try:
        await ready(str(values["HTTP"]))
        yield made
        made.cut()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        made.cut()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ready(http: str) -> None:
    """All its processes."""
    address, _, port = http.rpartition(":")
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(address, int(port))
                writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
                status = await reader.readline()
                writer.close()
                if b" 200 " in status:
                    return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def fakes(folder: pathlib.Path) -> AsyncIterator[str]:
    """A signer and a delivery that keeps nothing; the target of the delivery."""
    spool, signer = FakeSpool(), FakeSigner()
    async with (
        rpc.serve(f"unix:{folder}/signer.sock", lambda server: signer_pb2_grpc.add_SignerServicer_to_server(signer, server), grace_seconds=0),
        rpc.serve(f"unix:{folder}/delivery.sock", lambda server: spool_pb2_grpc.add_SpoolServicer_to_server(spool, server), grace_seconds=0),
    ):
        yield f"unix:{folder}/delivery.sock"


def test_limits_of_messages_hold_exactly_over_replicas_and_processes(postgres_server: postgres.Server, tmp_path: pathlib.Path) -> None:
    """Two ingresses, three processes, two deliveries on one PostgreSQL; thirty clients that send at the same time."""
    pool = Pool(name="default/main")

    async def attempts(client: Dialogue) -> list[str]:
        return [await client.message(HELLO) for _ in range(2)]

    async def scenario() -> None:
        async with fleet(tmp_path, postgres_server.database(), 2, pool) as deliveries, fakes(tmp_path):
            publish(tmp_path / "directory", [pool, domain(credentials=(limited(messages_per_day=17),), signed=False), certificate()], "2")
            first, second = (process.target for process in deliveries.processes)
            async with replica(tmp_path, first, 2) as one, replica(tmp_path, second, 1) as other:
                clients = [await place.authenticated() for place in (one, other) for _ in range(15)]
                assert {reply[:3] for _, reply in clients} == {"235"}
                replies = [reply for found in await asyncio.gather(*(attempts(client) for client, _ in clients)) for reply in found]
        assert Counter(reply[:9] for reply in replies) == {"250 2.0.0": 17, "452 4.7.1": 43}
        refusals = {reply for reply in replies if reply.startswith("452")}
        assert all(re.fullmatch(r"452 4\.7\.1 .*17 messages.* try again in \d+ s", refusal) for refusal in refusals), refusals

    asyncio.run(scenario())


def test_limits_of_connections_hold_over_the_processes_of_an_ingress(tmp_path: pathlib.Path) -> None:
    """One after the other, so that exactly the limit gets in whatever process the kernel chooses."""
    limits = {"MAX_CONNECTIONS": 20, "MAX_CONNECTIONS_PER_ADDRESS": 5}

    async def scenario() -> None:
        publish(tmp_path / "directory", [domain(credentials=(limited(max_connections=3),)), certificate()], "1")
        async with fakes(tmp_path) as delivery, replica(tmp_path, delivery, 2, **limits) as ingress:
            logins = [(await ingress.authenticated())[1][:9] for _ in range(5)]
            assert Counter(logins) == {"235 2.7.0": 3, "421 4.7.0": 2}
            greetings = [(await ingress.greeting("127.0.0.9"))[:9] for _ in range(20)]
            assert Counter(greetings) == {"220 mta.d": 5, "421 4.7.0": 15}
            greetings = [(await ingress.greeting(f"127.0.1.{number}"))[:9] for number in range(1, 31)]
            assert Counter(greetings) == {"220 mta.d": 12, "421 4.3.2": 18}, "three and five are inside"

    asyncio.run(scenario())
