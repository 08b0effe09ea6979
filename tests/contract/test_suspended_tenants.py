"""A suspended tenant, held by both engines: its mail is accepted, told in the numbers, not claimed and not visited, and goes on whole."""

import asyncio
import pathlib

from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Limits, NewRecipient
from postroom_delivery.spool.postgres import open_postgres

from contract.postgres import Server
from contract.test_spool import KEY, WIDE, Opener, claim_one, delivered, engine, message, run

__all__ = ["engine"]


def to(name: str, tenant: str, destination: str) -> object:
    return message(name, tenant, recipients=(NewRecipient(f"b@{destination}", destination),))


async def claimed(spool: Spool, now: int) -> list[str]:
    batches, _ = await spool.claim(now, 10, ())
    for batch in batches:
        await spool.settle(now, delivered(batch), ())
        await spool.release_slot(now, batch, 0)
    return sorted(found.id for batch in batches for found in batch.messages)


def test_others_go_on_and_the_suspended_one_waits_without_being_looked_at(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        assert [await spool.suspend_tenant(0, "bad", True), await spool.suspend_tenant(0, "bad", True)] == [1, 0]
        for name, tenant, destination in (("b1", "bad", "x.example"), ("b2", "bad", "only.example"), ("g1", "good", "x.example")):
            assert await spool.accept(to(name, tenant, destination), (0, b"body")) is None  # type: ignore[arg-type]
        assert await claimed(spool, 1) == ["g1"]
        batches, next_at = await spool.claim(2, 10, ())
        assert (batches, next_at) == ([], None)  # nothing asks for another look, whatever waits
        assert (await spool.stats(2)).suspended_tenants == ("bad",)
        assert [await spool.suspend_tenant(3, "bad", False), await spool.suspend_tenant(3, "bad", False)] == [1, 0]
        assert await claimed(spool, 3) == ["b1", "b2"]
        assert (await spool.stats(4)).suspended_tenants == ()

    run(engine, tmp_path, scenario)


def test_a_connection_that_waits_gets_nothing_of_it_and_what_was_claimed_before_ends(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("first", "bad"), (0, b"body"))
        batch = await claim_one(spool)
        await spool.suspend_tenant(0, "bad", True)
        await spool.accept(message("second", "bad"), (0, b"body"))
        assert (await spool.claim(1, 5, [KEY]))[0] == []
        await spool.settle(1, delivered(batch), ())
        await spool.release_slot(1, batch, 0)
        assert (await spool.claim(2, 5, ()))[0] == []
        await spool.suspend_tenant(3, "bad", False)
        assert await claimed(spool, 3) == ["second"]

    run(engine, tmp_path, scenario)


def test_it_asks_an_autoscaler_for_nothing(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for tenant in ("bad", "good"):
            await spool.accept(message(f"m-{tenant}", tenant), (0, b"body"))
        await spool.claim(0, 0, ())  # takes up what has arrived
        await spool.suspend_tenant(0, "bad", True)
        assert (await spool.backlog(1)).due == 1

    run(engine, tmp_path, scenario)


def test_a_deferred_message_of_a_suspended_tenant_is_due_after_the_resumption(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m", "bad"), (0, b"body"))
        batch = await claim_one(spool)
        await spool.suspend_tenant(0, "bad", True)
        await spool.release_slot(0, batch, 5000)  # the destination is blocked as well
        await spool.recover(10**9)
        await spool.suspend_tenant(10**9, "bad", False)
        assert await claimed(spool, 10**9 + 1) == ["m"]

    run(engine, tmp_path, scenario, WIDE)


def test_resumptions_lose_nothing_while_processes_accept_and_claim(postgres_server: Server) -> None:
    """The tenant is suspended and resumed all the time; at the end everything is there, with nobody left to wake it."""
    url = postgres_server.database()
    limits = Limits(50, None, 5)

    async def scenario() -> None:
        async with open_postgres(lambda: url, "one", lambda _: limits) as one, open_postgres(lambda: url, "two", lambda _: limits) as two:
            done: list[str] = []

            async def accepting(spool: Spool, prefix: str) -> None:
                for number in range(60):
                    await spool.accept(to(f"{prefix}{number}", "t", f"x{number % 7}.example"), (0, b"body"))  # type: ignore[arg-type]

            async def claiming(spool: Spool) -> None:
                for _ in range(120):
                    done.extend(await claimed(spool, 0))

            async def toggling() -> None:
                for turn in range(40):
                    await one.suspend_tenant(0, "t", turn % 2 == 0)

            await asyncio.gather(accepting(one, "a"), accepting(two, "b"), claiming(one), claiming(two), toggling())
            for _ in range(60):
                done.extend(await claimed(one, 0))
            assert sorted(done) == sorted(f"{prefix}{number}" for prefix in "ab" for number in range(60))

    asyncio.run(scenario())
