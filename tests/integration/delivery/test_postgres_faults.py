"""What befalls a database under a running delivery: away, full, no connection left. 4xx at the door, a pause behind it, and no restart of ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import asyncpg
import pytest

from postroom.v1 import queue_pb2, spool_pb2
from postroom_core.ids import new_message_id
from postroom_delivery.spool.postgres import open_postgres
from postroom_delivery.spool.postgres_link import Link, Transaction, connect

from contract import postgres
from integration.delivery.harness import BODY, HEADERS, Running, delivery


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    yield from postgres.serving(max_connections=40)


@contextlib.asynccontextmanager
async def world(folder: pathlib.Path, url: str) -> AsyncIterator[Running]:
    async with delivery(folder, spool_url=url, http=f"unix:{folder}/http.sock") as running:
        yield running


async def offer(running: Running) -> tuple[str, int]:
    """The id of a message and the code of the refusal, 0 when it was accepted."""
    message_id = new_message_id(running.now())
    end = spool_pb2.End(header_block=HEADERS, body_size=len(BODY), eight_bit=False)
    chunk = spool_pb2.EnqueueChunk(envelope=running.envelope(message_id, f"{message_id}@x.example"), body=BODY, end=end)
    response = await running.spool.Enqueue(iter([chunk]), timeout=40)
    return message_id, response.refused.code


async def ready(folder: pathlib.Path) -> bool:
    connector = aiohttp.UnixConnector(path=f"{folder}/http.sock")
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://localhost/readyz") as response:
        return response.status == 200


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


async def accounts(running: Running, accepted: list[str]) -> None:
    """Every accepted message is delivered; its copies are one and as many as events tell of doubt."""
    for message_id in accepted:
        events = await running.until(message_id, "delivered")
        doubts = [event.kind for event in events].count("ambiguous")
        copies = Counter(recipient for message in running.sink.messages for recipient in message.recipients)[f"{message_id}@x.example"]
        assert 1 <= copies <= 1 + doubts, events


def test_a_database_that_dies_and_comes_back_pauses_delivery_and_loses_nothing(server: postgres.Server, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, server.database()) as running:
            before = await asyncio.gather(*(offer(running) for _ in range(20)))
            assert {code for _, code in before} == {0}
            await asyncio.to_thread(server.stop)
            await until(lambda: not_ready(tmp_path))
            assert (await offer(running))[1] == 451
            await asyncio.to_thread(server.start)
            await until(lambda: ready(tmp_path))
            after = await offer(running)
            assert after[1] == 0
            await accounts(running, [*(message_id for message_id, _ in before), after[0]])

    asyncio.run(scenario())


async def not_ready(folder: pathlib.Path) -> bool:
    return not await ready(folder)


def test_a_database_without_a_free_connection_is_4xx_until_there_is_one(server: postgres.Server, tmp_path: pathlib.Path) -> None:
    """Delivery may not connect while its connections are ended and others take every place: a freed place could be its own again otherwise."""

    async def scenario() -> None:
        url = server.database()
        for role in ("app", "crowd"):
            server.sql(f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} LOGIN; END IF; END $$")
        server.sql("GRANT ALL ON SCHEMA public TO app", url)
        async with world(tmp_path, url.replace("postgres@", "app@")) as running:
            assert (await offer(running))[1] == 0
            async with contextlib.AsyncExitStack() as crowd:
                server.sql("ALTER ROLE app CONNECTION LIMIT 0")
                server.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'")
                with contextlib.suppress(asyncpg.TooManyConnectionsError):
                    while True:
                        other = await asyncpg.connect(url.replace("postgres@", "crowd@"))
                        crowd.push_async_callback(other.close)
                server.sql("ALTER ROLE app CONNECTION LIMIT -1")
                assert (await offer(running))[1] == 451
                assert not await ready(tmp_path)
            await until(lambda: ready(tmp_path))
            message_id, code = await offer(running)
            assert code == 0
            await accounts(running, [message_id])

    asyncio.run(scenario())


@pytest.fixture
def small_disk(server: postgres.Server) -> Iterator[str]:
    """The URL of a database on a file system of 48 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tempfile.mkdtemp(prefix="postroom-disk-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,uid=nobody,mode=0700", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        server.sql(f"CREATE TABLESPACE small LOCATION '{folder}'")
        server.sql("CREATE DATABASE small TABLESPACE small")
        yield f"postgresql://postgres@/small?host={server.folder}"
        server.sql("DROP DATABASE small WITH (FORCE)")
        server.sql("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", folder], check=True)
        pathlib.Path(folder).rmdir()


def test_a_full_disk_is_452_until_there_is_room(server: postgres.Server, small_disk: str, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, small_disk) as running:
            before = await offer(running)
            assert before[1] == 0
            await running.until(before[0], "delivered")
            filler = await asyncpg.connect(small_disk)
            await filler.execute("CREATE TABLE filler (data bytea)")
            await filler.execute("ALTER TABLE filler ALTER COLUMN data SET STORAGE EXTERNAL")
            for size in (1_000_000, 50_000, 2_000, 2_000):
                with contextlib.suppress(asyncpg.DiskFullError):
                    while True:
                        await filler.execute("INSERT INTO filler VALUES (convert_to(repeat('x', $1), 'UTF8'))", size)
            codes = [code for _, code in await asyncio.gather(*(offer(running) for _ in range(60)))]
            assert 452 in codes, codes
            await filler.execute("DROP TABLE filler")
            await filler.close()
            after = await offer(running)
            assert after[1] == 0
            await accounts(running, [after[0]])

    asyncio.run(scenario())


def test_a_deadlock_is_run_again_and_both_sides_commit(server: postgres.Server) -> None:
    async def scenario() -> None:
        url = server.database()
        server.sql("CREATE TABLE pair (id int PRIMARY KEY, n int); INSERT INTO pair VALUES (1, 0), (2, 0)", url)
        async with open_postgres(lambda: url, "a", lambda _: None), connect(lambda: url) as pool:  # type: ignore[arg-type, return-value]
            link, first_runs = Link(pool, caller_clock=False), 0
            met = asyncio.Barrier(2)

            async def both(transaction: Transaction, one: int, other: int) -> None:
                nonlocal first_runs
                await transaction.connection.execute("UPDATE pair SET n = n + 1 WHERE id = $1", one)
                if first_runs < 2:
                    first_runs += 1
                    await met.wait()
                await transaction.connection.execute("UPDATE pair SET n = n + 1 WHERE id = $1", other)

            await asyncio.gather(link.run(0, lambda t: both(t, 1, 2)), link.run(0, lambda t: both(t, 2, 1)))
        assert server.sql("SELECT n FROM pair ORDER BY id", url) == "2\n2"

    asyncio.run(scenario())


def test_a_message_in_the_queue_of_one_process_is_delivered_by_another(server: postgres.Server, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        url = server.database()
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        async with world(tmp_path / "one", url) as one, world(tmp_path / "two", url) as two:
            accepted = [message_id for message_id, _ in [await offer(one) for _ in range(20)]]
            for message_id in accepted:
                events = await one.until(message_id, "delivered")
                assert [event.kind for event in events] == ["accepted", "delivered"]
            arrived = [recipient for running in (one, two) for message in running.sink.messages for recipient in message.recipients]
            assert sorted(arrived) == sorted(f"{message_id}@x.example" for message_id in accepted)
            stats = await two.queue.Stats(queue_pb2.StatsRequest())
            assert dict(stats.recipients) == {"delivered": 20}

    asyncio.run(scenario())
