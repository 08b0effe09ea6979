"""The contract of curbs on senders in the spool, held by both engines."""

import pathlib
from dataclasses import replace
from typing import Any

from postroom_delivery.spool.curbs import Curb
from postroom_delivery.spool.model import EventDetail

from contract.test_rollups import HOUR, Opener, engine, everything, run, send

__all__ = ["engine"]
CURB = Curb("credential:t/d.example/app", "pause", "spam", "40 of 100", HOUR, HOUR + 5, 100, 7)


def test_a_curb_is_kept_over_a_restart_and_told_by_an_event_without_a_message(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def before(spool: Any) -> None:
        assert await spool.curbs() == []
        await send(spool, "m1", HOUR)
        await spool.set_curb(HOUR, CURB, EventDetail("paused", text="40 of 100"))
        await spool.set_curb(HOUR, replace(CURB, name="tenant:t", level="alert"), None)

    async def after(spool: Any) -> None:
        assert await spool.curbs() == [CURB, replace(CURB, name="tenant:t", level="alert")]
        await spool.set_curb(HOUR + 1, replace(CURB, level="none", spared_until=9), EventDetail("resumed", text="by command"))
        assert (await spool.curbs())[0] == replace(CURB, level="none", spared_until=9)
        events = [event for event in await spool.events("", 0, 100) if event.message == ""]
        assert [(event.kind, event.recipient, event.text) for event in events] == [
            ("paused", CURB.name, "40 of 100"),
            ("resumed", CURB.name, "by command"),
        ]
        await everything(spool)  # events without a message are no facts, and hold nothing up
        assert await spool.roll_up() == 0
        await spool.sweep(HOUR)
        assert len([event for event in await spool.events("", 0, 100) if event.message == ""]) == 2
        await spool.sweep(HOUR + 3 * 86_400_000)
        assert await spool.events("", 0, 100) == []

    run(engine, tmp_path, before)
    run(engine, tmp_path, after)
