"""Return paths that name a recipient: what is proven, what is not, how long, and over several processes."""

import asyncio
from dataclasses import replace

import pytest

from postroom_core.documents import SenderDomain
from postroom_core.returnpath import parse
from postroom_core.testing.clock import FakeClock
from postroom_delivery.spool.model import Claim, ClaimedMessage
from postroom_delivery.verp import PERIOD_MS, Verp

from integration.delivery.hops import DictMemory

SENDER = SenderDomain(name="d.example", tenant="t", signed=True, return_path="reports@bounce.d.example")
DAY = 86_400.0


def message(clock: FakeClock, *notify: str) -> ClaimedMessage:
    claims = tuple(Claim(number, 1, f"b{number}@x.example", 0, asked, "") for number, asked in enumerate(notify or ("", ""), 5))
    now = clock.now_ms()
    return ClaimedMessage("01M86SWK2QP69ZZ8FXM8G2T3Q0", "t", "d.example", "a@d.example", b"", 0, False, now, now, "", "", "", b"", claims)


def test_each_recipient_has_a_reverse_path_that_every_process_of_the_queue_can_prove() -> None:
    async def scenario() -> None:
        memory, clock = DictMemory(), FakeClock()
        one, other = Verp(memory, clock), Verp(memory, clock)
        parts = await one.split(message(clock), SENDER)
        assert [[claim.recipient for claim in part.claims] for part in parts] == [[5], [6]]
        assert [part.reverse_path for part in await other.split(message(clock), SENDER)] == [part.reverse_path for part in parts]
        for part in parts:
            found = await other.verified(["nonsense", "reports@bounce.d.example", part.reverse_path.upper()])
            assert found is not None
            assert (found.message_id, found.recipient, found.base) == (part.id, part.claims[0].recipient, "reports@bounce.d.example")

    asyncio.run(scenario())


def test_whatever_is_changed_is_proven_no_more() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        verp = Verp(DictMemory(), clock)
        path = parse((await verp.split(message(clock), SENDER))[0].reverse_path)
        assert path is not None
        changes = {"recipient": 6, "message_id": path.message_id[:-1] + "1", "proof": "a" * 16, "base": "reports@bounce.e.example"}
        for name, value in changes.items():
            assert await verp.verified([str(replace(path, **{name: value}))]) is None, name  # type: ignore[arg-type]
        assert await Verp(DictMemory(), clock).verified([str(path)]) is None  # another queue has another key

    asyncio.run(scenario())


@pytest.mark.parametrize(("days", "known"), [(0, True), (30, True), (89, True), (121, False)])
def test_a_key_outlives_its_period_by_three_and_a_message_keeps_its_address(days: int, known: bool) -> None:
    async def scenario() -> None:
        memory, clock = DictMemory(), FakeClock(100 * PERIOD_MS)
        held = message(clock)
        path = (await Verp(memory, clock).split(held, SENDER))[0].reverse_path
        await clock.advance(days * DAY)
        later = Verp(memory, clock)
        assert (await later.verified([path]) is not None) == known
        if known:
            assert (await later.split(held, SENDER))[0].reverse_path == path
            fresh = (await later.split(message(clock), SENDER))[0].reverse_path
            assert (fresh == path) == (days == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sender", "changes"),
    [(None, {}), (SENDER.model_copy(update={"return_path": ""}), {}), (SENDER, {"reverse_path": ""})],
)
def test_other_messages_leave_as_they_are(sender: SenderDomain | None, changes: dict[str, str]) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        given = replace(message(clock), **changes)  # type: ignore[arg-type]
        assert await Verp(DictMemory(), clock).split(given, sender) == (given,)

    asyncio.run(scenario())


def test_who_asks_for_notices_of_success_keeps_the_reverse_path_for_all() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        given = message(clock, "", "SUCCESS,FAILURE")
        assert await Verp(DictMemory(), clock).split(given, SENDER) == (given,)

    asyncio.run(scenario())
