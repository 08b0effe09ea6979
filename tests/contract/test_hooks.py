"""The contract of webhooks in the spool, held by both engines."""

import pathlib
from dataclasses import replace
from typing import Any

from postroom_delivery.spool.hooks import PAGE, HookState

from contract.test_rollups import HOUR, Opener, engine, run, send

__all__ = ["engine"]


def test_a_new_target_begins_with_what_happens_from_now_on(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Any) -> None:
        await send(spool, "m1", HOUR)
        state = await spool.hook("d.example/app")
        assert (state.sent, state.failures, await spool.hook_events(state.cursor)) == (0, 0, [])
        await send(spool, "m2", HOUR + 1, code=550)
        found = await spool.hook_events(state.cursor)
        assert [(event.message, event.kind, event.recipient, event.domain, event.tenant) for event in found] == [
            ("m2", "accepted", "", "d.example", "t"),
            ("m2", "bounced", "b@x.example", "d.example", "t"),
        ]
        assert (found[1].code, found[1].text, found[1].classification, found[1].credential, found[1].pool) == (
            550,
            "said",
            "unknown-user",
            "app",
            "p",
        )
        assert (await spool.hook("d.example/app")).cursor == state.cursor

    run(engine, tmp_path, scenario)


def test_events_come_in_pages_in_the_order_of_their_numbers(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Any) -> None:
        state = await spool.hook("a")
        for number in range(PAGE // 2 + 3):
            await send(spool, f"m{number}", HOUR + number * 10_000)
        first = await spool.hook_events(state.cursor)
        rest = await spool.hook_events(first[-1].number)
        assert (len(first), len(rest)) == (PAGE, 6)
        numbers = [event.number for event in first + rest]
        assert numbers == sorted(set(numbers))
        assert await spool.hook_backlog(state.cursor, "d.example") == [
            ("accepted", PAGE // 2 + 3, HOUR),
            ("delivered", PAGE // 2 + 3, HOUR + 1000),
        ]
        assert await spool.hook_backlog(state.cursor, "other.example") == []

    run(engine, tmp_path, scenario)


def test_a_state_is_kept_by_who_has_the_duty_alone_and_outlives_a_restart(engine: Opener, tmp_path: pathlib.Path) -> None:
    wanted = HookState("a", 7, 9, 5, 1, 3, HOUR, HOUR + 1, HOUR + 2, "status 500")

    async def before(spool: Any) -> None:
        state = await spool.hook("a")
        assert not await spool.move_hook("webhooks", replace(state, cursor=7))
        assert await spool.hold_duty(HOUR, "webhooks", 1000)
        assert await spool.move_hook("webhooks", wanted)
        assert not await spool.move_hook("another duty", replace(wanted, cursor=8))

    async def after(spool: Any) -> None:
        assert await spool.hooks() == [wanted]
        assert await spool.hook("a") == wanted

    run(engine, tmp_path, before)
    run(engine, tmp_path, after)
