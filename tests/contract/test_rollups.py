"""The contract of roll-ups, held by both engines."""

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from postroom_core.reply import Reply
from postroom_delivery import analytics
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import EventDetail, Limits, NewMessage, NewRecipient, Settlement, State
from postroom_delivery.spool.opening import open_spool
from postroom_delivery.spool.postgres import open_postgres
from postroom_delivery.spool.rollup import HOUR_MS

Opener = Callable[[pathlib.Path], contextlib.AbstractAsyncContextManager[Spool]]
HOUR = 1000 * HOUR_MS
MESSAGE = NewMessage(
    id="",
    tenant="t",
    pool="p",
    domain="d.example",
    credential="app",
    reverse_path="a@d.example",
    recipients=(NewRecipient("b@x.example", "x.example"),),
    headers=b"From: a\r\n",
    body_size=4,
    eight_bit=False,
    received_at=HOUR,
    expires_at=HOUR * 2,
)


def _sqlite(folder: pathlib.Path) -> contextlib.AbstractAsyncContextManager[Spool]:
    return open_spool(lambda: f"sqlite://{folder}/spool.sqlite3", "me", 0, lambda key: Limits(100, None, 100))


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Opener:
    """Both engines under the caller's clock, so that time is the test's."""
    if request.param == "sqlite":
        return _sqlite
    url = request.getfixturevalue("postgres_server").database()
    return lambda _: open_postgres(lambda: url, "me", lambda key: Limits(100, None, 100), caller_clock=True)


def run(engine: Opener, folder: pathlib.Path, scenario: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with engine(folder) as spool:
            await scenario(spool)

    asyncio.run(main())


async def send(spool: Any, name: str, at: int, *, to: str = "b@x.example", code: int = 250, campaign: str = "") -> None:
    """Accepts a message and settles its one recipient a second later."""
    recipients = (NewRecipient(to, to.rpartition("@")[2]),)
    await spool.accept(dataclasses.replace(MESSAGE, id=name, received_at=at, campaign=campaign, recipients=recipients), (0, b"body"))
    batches, _ = await spool.claim(at, 1, ())
    (batch,) = batches
    state, kind = (State.DELIVERED, "delivered") if code == 250 else (State.BOUNCED, "bounced")
    detail = EventDetail(kind, Reply(code, "", "said"), text="said", classification="success" if code == 250 else "unknown-user")
    await spool.settle(at + 1000, [Settlement(claim, state, detail) for found in batch.messages for claim in found.claims], [])
    await spool.release_slot(at + 1000, batch, 0)


async def everything(spool: Any) -> None:
    while await spool.roll_up():
        pass


async def ask(spool: Any, *by: str, since: int = HOUR, until: int = HOUR + 10 * HOUR_MS, **where: str) -> list[analytics.Row]:
    question = analytics.question(since, until, by, where)
    return analytics.rows(await spool.facts((question.grain, since, until), question.by, question.where))


def test_each_event_is_counted_once_however_often_and_by_whomever_it_is_asked(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Any) -> None:
        await send(spool, "m1", HOUR)
        await asyncio.gather(*(spool.roll_up() for _ in range(5)))
        await everything(spool)
        await send(spool, "m2", HOUR + 1)
        await everything(spool)
        (row,) = await ask(spool)
        assert row.counts == {"accepted": 2, "delivered": 2}
        assert row.latencies["delivery"].count == 2
        assert row.latencies["delivery"].p50 == pytest.approx(1000, rel=0.1)

    run(engine, tmp_path, scenario)


def test_what_was_counted_stays_counted_over_a_restart(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def before(spool: Any) -> None:
        await send(spool, "m1", HOUR)
        await everything(spool)

    async def after(spool: Any) -> None:
        await everything(spool)
        assert (await ask(spool))[0].counts == {"accepted": 1, "delivered": 1}

    run(engine, tmp_path, before)
    run(engine, tmp_path, after)


def test_groups_and_filters_see_the_messages_own_dimensions(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Any) -> None:
        await send(spool, "m1", HOUR, campaign="spring")
        await send(spool, "m2", HOUR + HOUR_MS, to="c@y.example", code=550, campaign="autumn")
        await everything(spool)
        assert {row.values: row.counts for row in await ask(spool, "destination", "class")} == {
            ("", ""): {"accepted": 2},
            ("x.example", ""): {"delivered": 1},
            ("y.example", "unknown-user"): {"bounced": 1},
            ("y.example", ""): {},
        }
        assert [row.counts for row in await ask(spool, campaign="autumn")] == [{"accepted": 1, "bounced": 1}]
        assert sorted(row.values for row in await ask(spool, "hour")) == [(str(HOUR),), (str(HOUR + HOUR_MS),)]
        assert sorted(row.values for row in await ask(spool, "minute")) == [(str(HOUR),), (str(HOUR + HOUR_MS),)]
        assert await ask(spool, campaign="' OR 1=1 --") == []

    run(engine, tmp_path, scenario)


def test_minutes_are_forgotten_before_hours_and_both_in_the_end(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Any) -> None:
        await send(spool, "m1", HOUR)
        await everything(spool)
        await spool.forget_facts(HOUR + 3 * 24 * HOUR_MS)
        assert (await ask(spool, "minute"), len(await ask(spool, "hour"))) == ([], 1)
        await spool.forget_facts(HOUR + 100 * 24 * HOUR_MS)
        assert await ask(spool, "hour") == []

    run(engine, tmp_path, scenario)
