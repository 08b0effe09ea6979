"""What an autoscaler is told of a spool, held by both engines: work for more workers, and never what limits hold back."""

import asyncio
import pathlib

import pytest

from postroom_delivery.limits import Budget, Rate
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Backlog, EventDetail, Key, Limits, NewRecipient, Settlement, State

from contract.test_spool import KEY, Opener, claim_one, delivered, engine, message, run

__all__ = ["engine"]
OPEN = Limits(100, None, 100)


async def fill(spool: Spool, count: int, *, destinations: int = 1, tenant: str = "t") -> None:
    for number in range(count):
        name = f"x{number % destinations}.example" if destinations > 1 else "x.example"
        await spool.accept(message(f"{tenant}{number:04}", tenant, recipients=(NewRecipient(f"b@{name}", name),)), (0, b"body"))


def test_an_empty_spool_asks_for_nobody(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        assert await spool.backlog(5000) == Backlog(0, 0)

    run(engine, tmp_path, scenario, OPEN)


def test_due_mail_counts_before_any_claim_has_seen_it_and_its_age_grows(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await fill(spool, 30, destinations=3)
        assert await spool.backlog(0) == Backlog(30, 0)
        assert await spool.backlog(90_000) == Backlog(30, 90_000)
        batches, _ = await spool.claim(90_000, 2, ())
        assert await spool.backlog(91_000) == Backlog(10, 91_000)  # what is under way needs nobody
        for batch in batches:
            await spool.settle(91_000, delivered(batch), ())
            await spool.release_slot(91_000, batch, 0)
        assert await spool.backlog(92_000) == Backlog(10, 92_000)

    run(engine, tmp_path, scenario, OPEN)


def test_mail_that_waits_for_its_next_attempt_does_not_count(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await fill(spool, 10)
        batch = await claim_one(spool)
        later = [
            Settlement(claim, State.SCHEDULED, EventDetail("deferred", text="4xx"), due_at=600_000)
            for found in batch.messages
            for claim in found.claims
        ]
        await spool.settle(1000, later, ())
        await spool.release_slot(1000, batch, 0)
        assert await spool.backlog(599_999) == Backlog(0, 0)
        assert await spool.backlog(601_000) == Backlog(10, 1000)

    run(engine, tmp_path, scenario, OPEN)


def test_blocked_suspended_and_held_mail_does_not_count(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await fill(spool, 9, destinations=3)
        batches, _ = await spool.claim(0, 1, ())
        await spool.release_slot(0, batches[0], 50_000)  # a dead host
        blocked = batches[0].key
        one, other = [key for name in range(3) if (key := Key("p", f"x{name}.example")) != blocked]
        await spool.suspend(0, one, True)
        found = [r for name in range(9) if (row := await spool.show(f"t{name:04}")) for r in row.recipients if r.destination == other.destination]
        assert await spool.reschedule(0, "hold", found[:2]) == 2
        assert await spool.backlog(10_000) == Backlog(1, 10_000)

    run(engine, tmp_path, scenario, Limits(100, None, 1))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(50, 2, 10),
        Limits(50, None, 10, (Budget("destination:p:x.example", (Rate(120, 60),)),)),
        Limits(50, None, 10, (Budget("pool:p", (Rate(2),)),)),
        Limits(50, None, 10, (), (Rate(2),)),
    ],
    ids=["destination, per second", "destination, per minute", "pool", "tenant"],
)
def test_throttled_mail_alone_never_asks_for_more_pods(engine: Opener, tmp_path: pathlib.Path, limits: Limits) -> None:
    """300 messages under a limit of two a second: asked before every claim of a minute, there are never more than the limit lets go, and none of
    it is old, although the last has been due for the whole minute."""

    async def scenario(spool: Spool) -> None:
        await asyncio.gather(*(spool.accept(message(f"m{number:04}"), (0, b"body")) for number in range(300)))
        most, oldest, sent = 0, 0, 0
        for now in range(0, 60_001, 500):
            found = await spool.backlog(now)
            most, oldest = max(most, found.due), max(oldest, found.oldest_ms)
            for batch in (await spool.claim(now, 8, ()))[0]:
                sent += len(batch.messages)
                await spool.settle(now, delivered(batch), ())
                await spool.release_slot(now, batch, 0)
        assert most <= 2
        assert oldest <= 1000
        assert 118 <= sent <= 124

    run(engine, tmp_path, scenario, limits)


def test_a_destination_without_a_free_connection_asks_for_nobody(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await fill(spool, 50)
        assert await spool.backlog(0) == Backlog(20, 0)  # two connections of ten messages
        first = await claim_one(spool)
        await claim_one(spool, 1)
        assert await spool.backlog(30_000) == Backlog(0, 0)
        await spool.settle(30_000, delivered(first), ())
        await spool.release_slot(30_000, first, 0)
        assert await spool.backlog(30_000) == Backlog(10, 29_999)  # since the last turn, not since it is due

    run(engine, tmp_path, scenario, Limits(2, None, 10))


def test_the_connections_of_a_pool_are_shared_by_its_destinations(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await fill(spool, 60, destinations=6)
        assert await spool.backlog(0) == Backlog(20, 0)  # four connections of five messages: two destinations of ten

    run(engine, tmp_path, scenario, Limits(50, None, 5, (Budget("pool:p", (), 4),)))


def test_one_tenants_limit_does_not_hide_another_tenants_work(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await fill(spool, 100, tenant="noisy")
        await fill(spool, 3, tenant="quiet")
        assert (await spool.backlog(0)).due == 4 + 3

    run(engine, tmp_path, scenario, Limits(50, None, 10, (), (Rate(4),)))


def test_a_slow_pace_asks_for_less(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await fill(spool, 50)
        (batch,) = [await claim_one(spool)]
        await spool.release_slot(0, batch, 0)
        await spool.throttle(0, KEY)
        assert (await spool.backlog(0)).due == 20  # half of four connections

    run(engine, tmp_path, scenario, Limits(4, None, 10))
