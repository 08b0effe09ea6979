"""Leases and fences over real processes on one PostgreSQL. Each scenario ends with its accounting: events, copies at the sink, connections."""

from __future__ import annotations

import asyncio
import pathlib
import random
import signal
import time

import pytest

from postroom_core.documents import DestinationLimit, Pool, Retry
from postroom_core.testing.faults import Action, Rule, SessionView, Wait, script

from contract import postgres
from integration.delivery.processes import LEASE_MS, Fleet, Process, fleet

RETRY = Retry(max_age=600, initial=0.2, maximum=0.5)
CONNECTIONS, RATE, BATCH = 3, 40, 10
WINDOW = 10.0  # seconds of the stretch in which messages at the sink are counted
POOL = Pool(name="default/main", retry=RETRY)
pytestmark = pytest.mark.timeout(300)  # a busy machine starts a process in ten seconds


def test_a_process_killed_after_the_dot_leaves_an_ambiguous_attempt_and_another_delivers(
    postgres_server: postgres.Server, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        stuck = asyncio.Event()
        rules = script([Rule(".", Wait(stuck), session=1)])
        async with fleet(tmp_path, postgres_server.database(), 1, POOL, rules) as world:
            (first,) = world.processes
            message_id = await world.enqueue(first)
            await in_doubt(postgres_server, world, message_id)
            first.kill()
            stuck.set()
            await first.start()
            events = await world.events(message_id, "delivered", "bounced", "expired")
            assert [event.kind for event in events] == ["accepted", "ambiguous", "delivered"]
            assert (await world.stats(first)).in_doubt == 1
            assert world.copies()[message_id] <= 2

    asyncio.run(scenario())


async def in_doubt(server: postgres.Server, world: Fleet, message_id: str) -> None:
    """Until the attempt has passed its final dot."""
    url = world.processes[0].environment["POSTROOM_SPOOL_URL"]
    async with asyncio.timeout(20):
        while server.sql(f"SELECT in_doubt FROM recipient WHERE message = '{message_id}'", url) != "t":
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("verb", "copies", "kinds"), [("RCPT", 1, ["accepted", "delivered"]), (".", 2, ["accepted", "ambiguous", "delivered"])])
def test_a_process_stopped_for_longer_than_its_lease_can_neither_send_nor_settle(
    verb: str, copies: int, kinds: list[str], postgres_server: postgres.Server, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        stuck, arrived = asyncio.Event(), asyncio.Event()

        def first_session_sticks(session: SessionView, said: str, _argument: str) -> Action | None:
            if session.number != 1 or said != verb:
                return None
            arrived.set()
            return Wait(stuck)

        url = postgres_server.database()
        async with fleet(tmp_path, url, 2, POOL, first_session_sticks) as world:
            message_id = await world.enqueue(world.processes[0])
            async with asyncio.timeout(60):
                await arrived.wait()
            holder = postgres_server.sql("SELECT holder FROM recipient WHERE state = 'leased'", url)
            (stopped,) = [process for process in world.processes if process.running and f"-{process.running.pid}-" in holder]
            other = next(process for process in world.processes if process is not stopped)
            stopped.signal(signal.SIGSTOP)
            before = time.monotonic()
            world.processes = [other, stopped]  # who is asked first
            await world.events(message_id, "delivered")
            assert time.monotonic() - before >= LEASE_MS / 1000 * 0.5
            stopped.signal(signal.SIGCONT)
            stuck.set()
            await written(stopped.folder / "log", "lease lost")
            events = await world.events(message_id, "delivered")
            assert [event.kind for event in events] == kinds
            assert dict((await world.stats(other)).recipients) == {"delivered": 1}
            assert world.copies()[message_id] == copies

    asyncio.run(scenario())


async def written(log: pathlib.Path, words: str) -> None:
    async with asyncio.timeout(20):
        while words not in log.read_text():
            await asyncio.sleep(0.05)


def test_four_processes_under_random_kills_lose_nothing_and_keep_the_limits(postgres_server: postgres.Server, tmp_path: pathlib.Path) -> None:
    asyncio.run(storm(postgres_server.database(), tmp_path, 20))


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_four_processes_under_two_minutes_of_random_kills_lose_nothing_and_keep_the_limits(
    postgres_server: postgres.Server, tmp_path: pathlib.Path
) -> None:
    asyncio.run(storm(postgres_server.database(), tmp_path, 120))


async def storm(url: str, folder: pathlib.Path, seconds: float) -> None:
    """Load on all processes while one after the other is killed, or stopped for longer than its lease.

    Lost 0; a second copy only where an event tells of doubt; limits hold at the sink.
    """
    limit = DestinationLimit(name="all", match=("*",), max_connections=CONNECTIONS, messages_per_second=RATE, messages_per_connection=BATCH)
    chance = random.Random(7)
    async with fleet(folder, url, 4, Pool(name="default/main", retry=RETRY, destination_limits=(limit,))) as world:
        began = time.monotonic()
        load = asyncio.create_task(load_until(world, began + seconds, chance))
        kills = stops = 0
        comebacks: list[asyncio.Task[None]] = []
        while time.monotonic() < began + seconds:
            await asyncio.sleep(chance.uniform(1, 4))
            # One stays, however long the others take to come back: the load must find somebody.
            if len(living := [process for process in world.processes if process.up]) < 2:
                continue
            victim = chance.choice(living)
            if (kills + stops) % 3 == 1:
                stops += 1
                comebacks.append(asyncio.create_task(stopped(victim, world.sink.port)))
            else:
                kills += 1
                victim.kill()
                comebacks.append(asyncio.create_task(victim.start()))
        await asyncio.gather(*comebacks)
        await load
        doubts = await accounts(world)
        took = time.monotonic() - began
        counted = f"accepted {len(world.accepted)}, copies {len(world.received)}, ambiguous {doubts}, connections {world.most_open}"
        print(f"{kills} kills, {stops} stops in {took:.0f} s: {counted}, most in {WINDOW} s {world.most_within(WINDOW)}")
        assert kills >= 2 and stops >= 1
        assert (await world.stats(world.processes[0])).in_doubt == doubts
        assert world.most_open <= CONNECTIONS
        # What was claimed just before the stretch may arrive in it: a batch of each connection, beside the second's worth that a bucket holds.
        assert world.most_within(WINDOW) <= RATE * (WINDOW + 1) + CONNECTIONS * BATCH


async def stopped(victim: Process, sink_port: int) -> None:
    """SIGSTOP for longer than the lease."""
    victim.stop(sink_port)
    await asyncio.sleep(LEASE_MS / 1000 * 1.5)
    await victim.go_on(sink_port)


async def accounts(world: Fleet) -> int:
    """Every accepted message is delivered, in one copy and as many more as events tell of doubt; how many these are."""
    doubts = 0
    for message_id in world.accepted:
        events = await world.events(message_id, "delivered", "bounced", "expired")
        assert events[-1].kind == "delivered"
        told = [event.kind for event in events].count("ambiguous")
        doubts += told
        assert 1 <= world.copies()[message_id] <= 1 + told, [event.kind for event in events]
    return doubts


async def load_until(world: Fleet, end: float, chance: random.Random) -> None:
    while time.monotonic() < end:
        await asyncio.gather(*(world.enqueue(chance.choice(world.processes)) for _ in range(5)))
        await asyncio.sleep(0.1)
