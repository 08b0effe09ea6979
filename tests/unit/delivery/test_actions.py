"""Actions on many recipients: answered in parts, each page in one transaction, and alone where a worker was faster."""

import asyncio
import pathlib
from collections.abc import Sequence
from typing import Any, cast

import pytest

from postroom.v1 import queue_pb2
from postroom_core.clock import SystemClock
from postroom_delivery.pools import Pools
from postroom_delivery.servicer import PAGE, QueueServicer
from postroom_delivery.signing import Signing
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Limits, RecipientRow
from postroom_delivery.spool.opening import open_spool

from contract.test_spool import message

Act = queue_pb2.ActRequest


class Slow(SystemClock):
    """A second passes at every look."""

    seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


async def answers(spool: Spool, action: Act.Action.ValueType, **which: Any) -> list[int]:
    """How many each part of the answer changed."""
    clock = Slow()
    servicer = QueueServicer(spool, Pools(), clock, "mta.d.example", Signing(None, "mta.d.example", clock, spool.body))
    found, after = [], ""
    while True:
        request = Act(action=action, all=True, filter=queue_pb2.ListRequest(**which), after=after)
        response = await servicer.Act(request, cast(Any, None))
        found.append(response.changed)
        if not (after := response.next):
            return found


async def filled(spool: Spool, count: int) -> None:
    await asyncio.gather(*(spool.accept(message(f"m{number:04}", expires_at=10**15), (0, b"body")) for number in range(count)))


@pytest.mark.parametrize("action", [Act.HOLD, Act.BOUNCE, Act.DELETE])
def test_an_action_on_many_is_answered_in_parts(tmp_path: pathlib.Path, action: Act.Action.ValueType) -> None:
    async def scenario() -> None:
        async with open_spool(lambda: f"sqlite://{tmp_path}/spool.sqlite3", "me", 0, lambda key: Limits(1, None, 10)) as spool:
            await filled(spool, 2 * PAGE + 5)
            assert await answers(spool, action, domain="x.example") == [PAGE, PAGE, 5]

    asyncio.run(scenario())


def test_what_a_worker_has_leased_meanwhile_stays_and_the_rest_of_the_page_ends(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with open_spool(lambda: f"sqlite://{tmp_path}/spool.sqlite3", "me", 0, lambda key: Limits(1, None, 3)) as spool:
            await filled(spool, 10)
            end = spool.end

            async def late(now: int, rows: Sequence[RecipientRow], *rest: Any) -> int:
                await spool.claim(10, 1, ())  # only the first time: the limit is one connection
                return await end(now, rows, *rest)

            monkeypatch.setattr(spool, "end", late)
            assert await answers(spool, Act.DELETE) == [7]
            assert (await spool.stats(10)).recipients == {"leased": 3, "deleted": 7}

    asyncio.run(scenario())
