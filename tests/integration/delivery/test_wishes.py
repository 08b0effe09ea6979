"""What a client asks of the time: a later release, delivery by a time, a priority. Each test ends with its accounting."""

import asyncio
import pathlib

import pytest

from postroom.v1 import queue_pb2, spool_pb2
from postroom_core.documents import Pool, Retry
from postroom_core.testing.faults import Rule, script
from postroom_delivery.attempt import Attempt
from postroom_delivery.outcome import Outcome
from postroom_delivery.spool.model import Claim

from integration.delivery.harness import delivery

EXTENSIONS = ("PIPELINING", "8BITMIME", "DELIVERBY", "MT-PRIORITY")


def test_by_and_priority_are_passed_on_to_a_peer_that_knows_them(tmp_path: pathlib.Path) -> None:
    """The sink refuses parameters that a MAIL of this content must not have; what it got is in its own words."""
    said: list[str] = []
    wanted = Rule("MAIL", b"550 5.7.0 seen", argument="BY=")

    async def scenario() -> None:
        async with delivery(tmp_path, extensions=EXTENSIONS, script=script([wanted])) as running:
            options = spool_pb2.MailOptions(deliver_by_ms=running.now() + 500_000, priority=4)
            events = await running.until(await running.enqueue("b@x.example", options=options), "delivered", "bounced")
            said.append(events[-1].text)
            options = spool_pb2.MailOptions(priority=4)
            await running.until(await running.enqueue("b@x.example", options=options), "delivered")
            message = next(message for message in running.sink.messages if message.reverse_path)
            assert not message.content.startswith(b"MT-Priority:")

    asyncio.run(scenario())
    assert said == ["seen"]


def test_a_priority_goes_in_a_header_field_to_a_peer_that_does_not_know_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path, extensions=("PIPELINING",)) as running:
            await running.until(await running.enqueue("b@x.example", options=spool_pb2.MailOptions(priority=-3)), "delivered")
            assert running.sink.messages[0].content.startswith(b"MT-Priority: -3\r\nFrom:")

    asyncio.run(scenario())


def test_a_message_on_hold_leaves_at_its_time_and_says_so_until_then(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path) as running:
            until = running.now() + 700
            message_id = await running.enqueue("b@x.example", options=spool_pb2.MailOptions(hold_until_ms=until))
            shown = await running.queue.Show(queue_pb2.ShowRequest(message_id=message_id))
            assert (shown.hold_until_ms, shown.summary.recipients[0].due_at_ms, shown.summary.recipients[0].attempts) == (until, until, 0)
            events = await running.until(message_id, "delivered")
            assert [event.kind for event in events] == ["accepted", "delivered"]
            assert events[-1].at_ms >= until

    asyncio.run(scenario())


def test_a_message_that_breaks_our_own_code_ends_in_an_expiry_and_a_notice_while_others_go_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F14: accounting is received 2, delivered 1, expired 1, told 1; the process that met the poison delivers both notices and mail."""
    run = Attempt.run

    async def poisoned(self: Attempt) -> dict[Claim, Outcome]:
        if any(claim.address == "poison@x.example" for claim in self._message.claims):
            raise ZeroDivisionError("poison")
        return await run(self)

    monkeypatch.setattr(Attempt, "run", poisoned)
    pool = Pool(name="default/main", retry=Retry(max_age=5, initial=0.5, maximum=1))

    async def scenario() -> None:
        async with delivery(tmp_path, pool) as running:
            poison = await running.enqueue("poison@x.example")
            good = await running.enqueue("b@x.example")
            assert [event.kind for event in await running.until(good, "delivered")] == ["accepted", "delivered"]
            kinds = [event.kind for event in await running.until(poison, "expired", "delivered")]
            assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("accepted", "expired", {"deferred"})
            assert 1 <= len(kinds) - 2 <= 12
            messages = await running.sink.wait_for(2)
            assert sorted(message.reverse_path for message in messages) == ["", "a@d.example"]
            notice = next(message for message in messages if not message.reverse_path)
            assert b"internal error" in b" ".join(notice.content.split())

    asyncio.run(scenario())
