"""What people select in a spool, held by both engines."""

import pathlib

import pytest

from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import EventDetail, ListFilter, NewRecipient, Settlement, State

from contract.test_spool import Opener, claim_one, delivered, engine, message, run

__all__ = ["engine"]


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (ListFilter(), ["m1", "m2", "m3"]),
        (ListFilter(tenant="other"), ["m2"]),
        (ListFilter(domain="y.example"), ["m3"]),
        (ListFilter(destination="smart-host:s"), ["m3"]),
        (ListFilter(pool="q"), []),
        (ListFilter(pool="p", sender="a@d.example", after="m1"), ["m2", "m3"]),
        (ListFilter(classification="greylist"), ["m1"]),
        (ListFilter(received_before=20), ["m1", "m2"]),
        (ListFilter(states=("held",)), []),
    ],
)
def test_a_filter_finds_the_messages_with_such_a_recipient(engine: Opener, tmp_path: pathlib.Path, which: ListFilter, found: list[str]) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1", received_at=1), (0, b"body"))
        batch = await claim_one(spool, 5)
        (claim,) = batch.messages[0].claims
        deferred = EventDetail("deferred", text="try later", classification="greylist")
        await spool.settle(5, [Settlement(claim, State.SCHEDULED, deferred, due_at=100)], ())
        await spool.accept(message("m2", "other", received_at=10), (0, b"body"))
        two = (NewRecipient("b@x.example", "x.example"), NewRecipient("b@y.example", "smart-host:s"))
        await spool.accept(message("m3", recipients=two, received_at=30), (0, b"body"))
        rows = await spool.list_messages(which)
        assert [row.id for row in rows] == found
        meant = [r.address for row in rows for r in row.recipients if which.fits(r)]
        assert len(meant) >= len(found)
        if which.destination or which.domain:
            assert meant == ["b@y.example"]

    run(engine, tmp_path, scenario)


@pytest.mark.parametrize(
    ("states", "found"),
    [
        (("scheduled",), ["m1"]),
        (("held",), ["m2"]),
        (("leased",), []),
        (("deleted",), ["m3"]),
        (("bounced", "expired"), []),
        (("delivered",), ["m4"]),
        (("held", "deleted"), ["m2", "m3"]),
        (("unheard-of",), []),
    ],
)
@pytest.mark.parametrize("sender", ["", "a@d.example"])
def test_states_select_in_every_combination(engine: Opener, tmp_path: pathlib.Path, states: tuple[str, ...], found: list[str], sender: str) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m4"), (0, b"body"))
        await spool.settle(0, delivered(await claim_one(spool)), ())
        for name in ("m1", "m2", "m3"):
            await spool.accept(message(name), (0, b"body"))
        rows = {row.id: row.recipients for row in await spool.list_messages(ListFilter())}
        await spool.reschedule(0, "hold", rows["m2"])
        await spool.end(0, rows["m3"], lambda claim: Settlement(claim, State.DELETED, EventDetail("deleted")), ())
        assert [row.id for row in await spool.list_messages(ListFilter(states=states, sender=sender))] == found
        assert await spool.list_messages(ListFilter(states=states, sender="nobody@d.example")) == []

    run(engine, tmp_path, scenario)


def test_the_numbers_of_the_queue_follow_every_change(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        async def numbers() -> tuple[dict[str, int], dict[str, int], int, int]:
            stats = await spool.stats(50)
            return stats.recipients, {row.destination: row.scheduled for row in stats.destinations}, stats.due, stats.oldest_due_at

        for number in range(4):
            await spool.accept(message(f"m{number}", received_at=number + 1), (0, b"body"))
        batch = await claim_one(spool, 10)
        assert (await numbers())[:2] == ({"leased": 4}, {"x.example": 0})
        claims = [message.claims[0] for message in batch.messages]
        moved = Settlement(claims[0], State.SCHEDULED, None, due_at=20, attempted=False, destination="mx:y")
        later = Settlement(claims[1], State.SCHEDULED, EventDetail("deferred", text="later"), due_at=100)
        ended = [Settlement(claims[2], State.DELIVERED, EventDetail("delivered")), Settlement(claims[3], State.BOUNCED, EventDetail("bounced"))]
        await spool.settle(11, [moved, later, *ended], ())
        await spool.release_slot(11, batch, 0)
        await spool.claim(19, 0, ())  # where work arrived is seen by claims
        assert await numbers() == ({"scheduled": 2, "delivered": 1, "bounced": 1}, {"mx:y": 1, "x.example": 1}, 1, 20)
        (row,) = await spool.list_messages(ListFilter(destination="mx:y"))
        await spool.reschedule(21, "hold", row.recipients)
        await spool.claim(22, 0, ())
        recipients, places, due, _ = await numbers()
        assert (recipients, places["x.example"], due) == ({"scheduled": 1, "held": 1, "delivered": 1, "bounced": 1}, 1, 0)

    run(engine, tmp_path, scenario)
