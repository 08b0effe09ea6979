"""The limits of a spool engine, held by both; and by four processes on one PostgreSQL."""

import asyncio
import contextlib
import pathlib
from collections import Counter

import pytest

from postroom_delivery.limits import Budget, Rate
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Limits, NewRecipient
from postroom_delivery.spool.postgres import open_postgres

from contract.postgres import Server
from contract.test_spool import KEY, Opener, claim_one, delivered, engine, message, run

__all__ = ["engine"]


def test_connection_slots_limit_the_batches_until_one_is_given_back(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for number in range(3):
            await spool.accept(message(f"m{number}"), (0, b"body"))
        first = await claim_one(spool)
        assert (await spool.claim(0, 5, ()))[0] == []
        await spool.release_slot(1, first, 0)
        await claim_one(spool, 1)

    run(engine, tmp_path, scenario, Limits(1, None, 1))


def test_a_rate_holds_over_a_minute(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await asyncio.gather(*(spool.accept(message(f"m{number:04}"), (0, b"body")) for number in range(400)))
        sent = 0
        for now in range(0, 60_001, 200):
            for batch in (await spool.claim(now, 4, ()))[0]:
                sent += len(batch.messages)
                await spool.settle(now, delivered(batch), ())
                await spool.release_slot(now, batch, 0)
        assert 300 * 0.98 <= sent <= 305 * 1.02

    run(engine, tmp_path, scenario, Limits(2, 5, 10))


def test_a_pool_and_a_tenant_have_limits_of_their_own_over_all_destinations(engine: Opener, tmp_path: pathlib.Path) -> None:
    """Ten destinations without limits; the pool may send 6 a second, each tenant 4."""

    async def scenario(spool: Spool) -> None:
        for tenant in ("one", "two"):
            for number in range(100):
                name = f"x{number % 10}.example"
                await spool.accept(message(f"{tenant}{number:03}", tenant, recipients=(NewRecipient(f"b@{name}", name),)), (0, b"body"))
        sent: Counter[str] = Counter()
        for now in range(0, 10_001, 500):
            for batch in (await spool.claim(now, 20, ()))[0]:
                sent.update(m.tenant for m in batch.messages)
                await spool.settle(now, delivered(batch), ())
                await spool.release_slot(now, batch, 0)
        assert 60 * 0.9 <= sum(sent.values()) <= 66
        assert max(sent.values()) <= 44
        assert min(sent.values()) >= 16

    budgets = (Budget("pool:p", (Rate(6),)),)
    run(engine, tmp_path, scenario, Limits(5, None, 10, budgets, (Rate(4),)))


@pytest.mark.parametrize("singly", [False, True])
def test_a_recipient_counts_as_a_message_where_it_leaves_alone(engine: Opener, tmp_path: pathlib.Path, singly: bool) -> None:
    """Two messages of three recipients at 4 a second, and a tenant's 4 a second; a connection takes 5."""

    async def scenario(spool: Spool) -> None:
        for number in range(2):
            recipients = tuple(NewRecipient(f"b{place}@x.example", "x.example") for place in range(3))
            await spool.accept(message(f"m{number}", recipients=recipients), (0, b"body"))
        taken = []
        for now in (0, 1000, 2000):
            for batch in (await spool.claim(now, 4, ()))[0]:
                taken.append([len(m.claims) for m in batch.messages])
                await spool.settle(now, delivered(batch), ())
                await spool.release_slot(now, batch, 0)
        assert taken == ([[3, 1], [2]] if singly else [[3, 3]])

    run(engine, tmp_path, scenario, Limits(2, 4, 5, (), (Rate(4),), frozenset({"d.example"} if singly else ())))


def test_a_pool_has_no_more_connections_than_its_limit(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for number in range(6):
            name = f"x{number}.example"
            await spool.accept(message(f"m{number}", recipients=(NewRecipient(f"b@{name}", name),)), (0, b"body"))
        batches, _ = await spool.claim(0, 10, ())
        assert len(batches) == 4
        assert (await spool.claim(1000, 10, ()))[0] == []
        await spool.release_slot(1000, batches[0], 0)
        assert len((await spool.claim(2000, 10, ()))[0]) == 1

    run(engine, tmp_path, scenario, Limits(5, None, 10, (Budget("pool:p", (), 4),)))


def test_a_destination_that_throttles_gets_half_the_connections_and_recovers(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for number in range(20):
            await spool.accept(message(f"m{number:02}"), (0, b"body"))
        await claim_one(spool)
        for _ in range(3):  # many replies of one moment count once
            await spool.throttle(0, KEY)
        assert len([batch for _ in range(6) for batch in (await spool.claim(1, 1, ()))[0]]) == 1
        (row,) = (await spool.stats(1)).destinations
        assert (row.connections, round(row.factor, 2)) == (2, 0.5)
        assert len([batch for _ in range(6) for batch in (await spool.claim(600_001, 1, ()))[0]]) == 2
        assert (await spool.stats(600_001)).destinations[0].factor == 1.0

    run(engine, tmp_path, scenario, Limits(4, None, 1))


@pytest.mark.parametrize(("most", "rate"), [(3, None), (20, 7)])
def test_four_processes_with_one_limit_have_the_limit_and_not_four_times_it(postgres_server: Server, most: int, rate: int | None) -> None:
    """A virtual minute, after a second for the burst of a full bucket: all four claim at every step at the same time."""

    async def scenario() -> None:
        url, limits = postgres_server.database(), Limits(most, rate, 10, (Budget("pool:p", (Rate(12),)),))
        async with contextlib.AsyncExitStack() as stack:
            opened = [open_postgres(lambda: url, f"p{n}", lambda _: limits, caller_clock=True) for n in range(4)]
            spools = [await stack.enter_async_context(one) for one in opened]
            await asyncio.gather(*(spools[n % 4].accept(message(f"m{n:04}"), (0, b"body")) for n in range(900)))
            sent, most_open = 0, 0
            for now in range(0, 61_001, 500):
                found = await asyncio.gather(*(spool.claim(now, 4, ()) for spool in spools))
                most_open = max(most_open, sum(len(batches) for batches, _ in found))
                sent += (now > 1000) * sum(len(m.claims) for batches, _ in found for b in batches for m in b.messages)
                for spool, (batches, _) in zip(spools, found, strict=True):
                    for batch in batches:
                        await spool.settle(now, delivered(batch), ())
                        await spool.release_slot(now, batch, 0)
            wanted = 60 * min(rate or 12, 12)
            assert most_open <= most
            assert wanted * 0.98 <= sent <= wanted * 1.02

    asyncio.run(scenario())


def test_a_destination_with_an_old_backlog_does_not_get_every_free_connection(engine: Opener, tmp_path: pathlib.Path) -> None:
    """Its mail has been due for longer than that of the other one, which has been waiting in the line since its own came."""

    async def scenario(spool: Spool) -> None:
        for number in range(3):
            await spool.accept(message(f"m{number}", recipients=(NewRecipient("b@old.example", "old.example"),)), (0, b"body"))
        first = await claim_one(spool, 10)
        assert first.key.destination == "old.example"
        assert (await spool.claim(10, 1, ()))[0] == []  # no connection is free
        await spool.accept(message("m9", received_at=11, recipients=(NewRecipient("b@new.example", "new.example"),)), (0, b"body"))
        await spool.release_slot(12, first, 0)
        assert [(await claim_one(spool, 13)).key.destination for _ in range(2)] == ["new.example", "old.example"]

    run(engine, tmp_path, scenario, Limits(1, None, 1))


def test_tenants_of_one_destination_take_turns_by_small_batches(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for tenant, count in (("noisy", 50), ("quiet", 2)):
            for number in range(count):
                await spool.accept(message(f"{tenant}{number:02}", tenant), (0, b"body"))
        batches = [await claim_one(spool, now) for now in (1, 2, 3)]
        assert [(batch.messages[0].tenant, len(batch.messages)) for batch in batches] == [("noisy", 10), ("quiet", 2), ("noisy", 10)]

    run(engine, tmp_path, scenario, Limits(5, None, 100))
