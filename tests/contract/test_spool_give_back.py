"""What a worker leaves unsettled goes back to the queue while its process lives on and renews every lease: held by both engines."""

import pathlib

from postroom_delivery.spool.interface import Spool

from contract.test_spool import Opener, claim_one, delivered, engine, message, run

__all__ = ["engine"]


def test_what_a_worker_gives_back_is_due_when_it_says_and_one_in_doubt_is_told(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for name in ("m1", "m2"):
            await spool.accept(message(name), (0, b"body"))
        batch = await claim_one(spool)
        claims = [claim for one in batch.messages for claim in one.claims]
        await spool.doubt(claims[:1])
        await spool.release_slot(1, batch, 0)
        assert await spool.give_back(1, claims, 500) == len(claims) == 2
        assert (await spool.claim(499, 1, ()))[0] == []
        again = await claim_one(spool, 500)
        assert len(again.messages) == 2
        assert (await spool.stats(500)).ambiguous == 1
        assert [event.kind for event in await spool.events("m1", 0, 10)] == ["accepted", "ambiguous"]
        await spool.settle(501, delivered(again), ())

    run(engine, tmp_path, scenario)


def test_what_was_settled_or_is_another_claims_by_now_is_left_alone(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        batch = await claim_one(spool)
        claims = batch.messages[0].claims
        assert await spool.give_back(1, claims, 1) == 1
        again = await claim_one(spool, 1)
        assert await spool.give_back(1, claims, 1) == 0
        await spool.settle(2, delivered(again), ())
        assert await spool.give_back(3, again.messages[0].claims, 3) == 0
        assert (await spool.stats(3)).recipients == {"delivered": 1}

    run(engine, tmp_path, scenario)
