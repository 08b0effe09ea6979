"""What KEDA gets from delivery: a real side door over a real spool."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from postroom_core import http
from postroom_core.errors import Unavailable
from postroom_core.testing.clock import FakeClock
from postroom_delivery.queuestats import FRESH_SECONDS, QueueStats
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Backlog, Limits
from postroom_delivery.spool.opening import open_spool

from contract.test_spool import message


@contextlib.asynccontextmanager
async def served(spool: Spool, clock: FakeClock, folder: pathlib.Path) -> AsyncIterator[pathlib.Path]:
    app = http.application(lambda: "")
    app.router.add_get("/queue-stats", QueueStats(spool, clock).answer)
    async with http.serve(f"unix:{folder / 's'}", app):
        yield folder / "s"


def values(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_two_numbers_that_are_looked_up_anew_when_they_are_old(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        limits = Limits(5, None, 10)
        async with (
            open_spool(lambda: f"sqlite://{tmp_path}/spool.db", "me", clock.now_ms(), lambda _: limits) as spool,
            served(spool, clock, tmp_path) as door,
        ):
            assert values((await http.ask(door, "/queue-stats"))[1]) == {"postroom_due_messages": 0, "postroom_oldest_due_seconds": 0}
            for number in range(3):
                await spool.accept(message(f"m{number}", received_at=clock.now_ms()), (0, b"body"))
            assert values((await http.ask(door, "/queue-stats"))[1])["postroom_due_messages"] == 0  # of the same moment
            await clock.advance(FRESH_SECONDS)
            status, text = await http.ask(door, "/queue-stats")
            assert (status, values(text)) == (200, {"postroom_due_messages": 3, "postroom_oldest_due_seconds": FRESH_SECONDS})

    asyncio.run(scenario())


def test_a_spool_that_cannot_be_asked_is_an_error_and_not_an_empty_queue(tmp_path: pathlib.Path) -> None:
    class Gone:
        async def backlog(self, now: int) -> Backlog:
            raise Unavailable("spool: the database is away")

    async def scenario() -> None:
        async with served(Gone(), FakeClock(), tmp_path) as door:  # type: ignore[arg-type]
            assert await http.ask(door, "/queue-stats") == (503, "spool: the database is away\n")
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(door))) as session, session.get("http://d/metrics") as answer:
                assert "postroom_due_messages" not in await answer.text()

    asyncio.run(scenario())
