"""The wall clock steps by an hour or a day, in either direction, under either engine: nothing is lost, claimed twice or kept waiting."""

import asyncio
import pathlib

import asyncpg
import pytest

from postroom_delivery.limits import Budget, Rate
from postroom_delivery.spool.interface import LEASE_MS, Spool
from postroom_delivery.spool.model import EventDetail, Limits, MailOptions, Settlement, State
from postroom_delivery.spool.postgres import open_postgres

from contract.postgres import Server
from contract.test_spool import KEY, WIDE, Opener, claim_one, delivered, engine, message, run

__all__ = ["engine"]
HOUR, DAY = 3_600_000, 86_400_000
START = 10 * DAY
STEPS = [HOUR, -HOUR, DAY, -DAY]


async def deferred(spool: Spool, name: str, now: int, due: int) -> None:
    """Accepts a message and defers it until `due`."""
    await spool.accept(message(name, received_at=now), (0, b"body"))
    batch = await claim_one(spool, now)
    (claim,) = batch.messages[0].claims
    await spool.settle(now, [Settlement(claim, State.SCHEDULED, EventDetail("deferred"), due_at=due)], ())
    await spool.release_slot(now, batch, 0)


async def claimed(spool: Spool, now: int) -> list[str]:
    batches, _ = await spool.claim(now, 10, ())
    for batch in batches:
        await spool.settle(now, delivered(batch), ())
        await spool.release_slot(now, batch, 0)
    return [found.id for batch in batches for found in batch.messages]


@pytest.mark.parametrize("step", STEPS)
def test_a_retry_comes_when_it_would_have_come_or_earlier(engine: Opener, tmp_path: pathlib.Path, step: int) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.recover(START)
        await deferred(spool, "m", START, START + 300_000)
        now = START + 1000 + step
        await spool.recover(now)
        if step < 0:
            assert await claimed(spool, now) == []
        assert await claimed(spool, now + 300_000) == ["m"]

    run(engine, tmp_path, scenario)


@pytest.mark.parametrize("step", STEPS)
def test_what_was_due_is_still_due_and_a_block_ends(engine: Opener, tmp_path: pathlib.Path, step: int) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.recover(START)
        await spool.accept(message("first", received_at=START), (0, b"body"))
        batch = await claim_one(spool, START)
        await spool.accept(message("second", received_at=START), (0, b"body"))
        await spool.settle(START, delivered(batch), ())
        await spool.release_slot(START, batch, START + 60_000)
        now = START + 1000 + step
        await spool.recover(now)
        await spool.accept(message("third", received_at=now), (0, b"body"))
        assert sorted(await claimed(spool, now + 60_000)) == ["second", "third"]

    run(engine, tmp_path, scenario)


@pytest.mark.parametrize("step", [-HOUR, -DAY])
def test_what_was_to_be_held_until_a_date_is_held_until_then(engine: Opener, tmp_path: pathlib.Path, step: int) -> None:
    async def scenario(spool: Spool) -> None:
        until = START + 2 * HOUR
        await spool.recover(START)
        await spool.accept(message("m", received_at=START, options=MailOptions(hold_until=until)), (0, b"body"))
        await spool.recover(START + step)
        assert await claimed(spool, until - 1) == []
        assert await claimed(spool, until) == ["m"]

    run(engine, tmp_path, scenario)


@pytest.mark.parametrize("step", STEPS)
def test_rates_give_no_more_and_no_less_and_a_pace_recovers(engine: Opener, tmp_path: pathlib.Path, step: int) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.recover(START)
        for number in range(60):
            await spool.accept(message(f"m{number:02}", received_at=START), (0, b"body"))
        sent = [len(await claimed(spool, START + 500 * turn)) for turn in range(4)]
        await spool.throttle(START + 2000, KEY)
        now = START + 2000 + step
        await spool.recover(now)
        assert (await spool.stats(now)).destinations[0].factor <= (0.5 if step < 0 else 1)
        sent += [len(await claimed(spool, now + 500 * turn)) for turn in range(8)]
        assert max(sent) <= 5
        assert 5 <= sum(sent[4:]) <= 25
        await spool.recover(now + 20 * 60_000)
        assert (await spool.stats(now + 20 * 60_000)).destinations[0].factor == 1

    run(engine, tmp_path, scenario, Limits(5, 5, 10, (Budget("pool:p", (Rate(5),)),)))


@pytest.mark.parametrize("step", STEPS)
def test_a_living_worker_keeps_its_lease_and_a_dead_one_loses_it_in_time(engine: Opener, tmp_path: pathlib.Path, step: int) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.recover(START)
        await spool.accept(message("m", received_at=START), (0, b"body"))
        batch = await claim_one(spool, START)
        await spool.renew(START)
        now = START + 1000 + step
        if step < 0:
            assert await spool.recover(now) == 0
            await spool.doubt(batch.messages[0].claims)
        if not spool.name.startswith("postgres"):  # SQLite's leases are this process's, which has just renewed them
            assert await spool.recover(now) == 0
            await spool.settle(now, delivered(batch), ())
        elif step < 0:  # nobody renews any more: after one lease by the new clock it is free
            assert await spool.recover(now + LEASE_MS + 1) == 1

    run(engine, tmp_path, scenario)


async def hide_clock(connection: asyncpg.Connection) -> None:
    """Lets a function of ours stand before the system's clock, for connections made from now on."""
    await connection.execute("CREATE SCHEMA stepped; CREATE TABLE stepped.by (step interval); INSERT INTO stepped.by VALUES ('0')")
    now = "SELECT pg_catalog.clock_timestamp() + (SELECT step FROM stepped.by)"
    await connection.execute(f"CREATE FUNCTION stepped.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ {now} $$")
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET search_path = public, stepped, pg_catalog')


@pytest.mark.parametrize("step", STEPS)
def test_two_processes_under_a_database_whose_clock_steps(postgres_server: Server, step: int) -> None:
    """One works, the other looks for dead ones: it takes nothing from the living, and what waits comes."""
    url = postgres_server.database()

    async def scenario() -> None:
        connection = await asyncpg.connect(url)
        await hide_clock(connection)
        async with open_postgres(lambda: url, "one", lambda _: WIDE) as one, open_postgres(lambda: url, "two", lambda _: WIDE) as two:
            for spool in (one, two):
                await spool.renew(0)
                await spool.recover(0)
            await one.accept(message("m"), (0, b"body"))
            (batch,) = (await one.claim(0, 5, ()))[0]
            await connection.execute(f"UPDATE stepped.by SET step = '{step} milliseconds'")
            assert [await two.recover(0), await one.recover(0)] == [0, 0]
            assert (await two.claim(0, 5, ()))[0] == []
            await one.doubt(batch.messages[0].claims)
            await one.settle(0, delivered(batch), ())
            await one.release_slot(0, batch, 0)
            await two.accept(message("n"), (0, b"body"))
            (other,) = (await two.claim(0, 5, ()))[0]
            assert [found.id for found in other.messages] == ["n"]
        await connection.close()

    asyncio.run(scenario())
