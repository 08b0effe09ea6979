"""What people select in a spool, held by both engines."""

import pathlib

import pytest

from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import EventDetail, ListFilter, NewRecipient, Settlement, State

from contract.test_spool import Opener, claim_one, engine, message, run

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
