"""Outgoing spam control from the replies of a receiver to the refusal of the next message, with the other senders going on."""

import asyncio
import pathlib
from typing import Any

import pytest
from grpc import aio

from postroom.v1 import queue_pb2, reputation_pb2, reputation_pb2_grpc, spool_pb2
from postroom_core import rpc
from postroom_core.documents import Reputation, Thresholds
from postroom_core.ids import new_message_id
from postroom_core.testing.faults import Rule, script
from postroom_delivery import reputation_keeper

from integration.delivery.harness import BODY, FAST, HEADERS, Running, delivery

SPAMMER = "credential:default/d.example/spammer"
POLICY = Reputation(minimum_recipients=20, hard_bounces=Thresholds(slow=30, pause=60), slow_messages_per_hour=2)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reputation_keeper, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(reputation_keeper, "POLL_SECONDS", 0.1)


def stub(channel: aio.Channel) -> "reputation_pb2_grpc.ReputationAsyncStub":
    return reputation_pb2_grpc.ReputationStub(channel)


async def submit(running: Running, credential: str, recipient: str) -> spool_pb2.EnqueueResponse:
    message_id = new_message_id(running.now())
    envelope = running.envelope(message_id, recipient, credential=credential)
    chunk = spool_pb2.EnqueueChunk(envelope=envelope, body=BODY, end=spool_pb2.End(header_block=HEADERS, body_size=len(BODY)))
    return await running.spool.Enqueue(iter([chunk]), timeout=10)


async def until_level(channel: aio.Channel, level: str) -> reputation_pb2.Curb:
    async with asyncio.timeout(30):
        while True:
            curbs = (await stub(channel).List(reputation_pb2.ReputationRequest())).curbs
            if any(curb.level == level for curb in curbs):
                (curb,) = curbs
                return curb
            await asyncio.sleep(0.1)


async def spam(running: Running, good: int, bad: int) -> None:
    """So many recipients that exist and that do not, in messages with one recipient, all at their end."""
    ids = [(await submit(running, "spammer", f"{name}{number}@x.example")) for name, count in (("gone", bad), ("b", good)) for number in range(count)]
    for response in ids:
        await running.until(response.accepted.message_id, "delivered", "bounced")


def world(folder: pathlib.Path, policy: Reputation = POLICY) -> Any:
    rules = [Rule("RCPT", b"550 5.1.1 no such user", argument="gone")]
    return delivery(folder, FAST.model_copy(update={"reputation": policy}), script=script(rules))


def test_a_sender_to_unknown_recipients_is_paused_the_others_go_on_and_a_person_ends_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as running, rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel:
            await spam(running, good=5, bad=19)
            curb = await until_level(channel, "pause")
            assert (curb.name, curb.signal) == (SPAMMER, "unknown-recipients")
            assert "19 of 24 recipients do not exist (79 %; from 60 %)" in curb.text
            await asyncio.sleep(0.3)  # three looks of who refuses
            refused = (await submit(running, "spammer", "b@x.example")).refused
            assert (refused.code, refused.enhanced) == (450, "4.7.1")
            assert "Sending by this credential is paused until" in refused.text
            assert "19 of 24 recipients do not exist" in refused.text
            assert (await submit(running, "app", "b@x.example")).accepted.message_id
            events = [event async for event in running.queue.Events(queue_pb2.EventsRequest())]
            assert [(event.kind, event.recipient) for event in events if not event.message_id] == [("paused", SPAMMER)]
            await stub(channel).Resume(reputation_pb2.ResumeRequest(name=SPAMMER, spare_ms=3_600_000))
            assert (await submit(running, "spammer", "b@x.example")).accepted.message_id
            with pytest.raises(aio.AioRpcError, match="nothing is known against tenant:x"):
                await stub(channel).Resume(reputation_pb2.ResumeRequest(name="tenant:x"))

    asyncio.run(scenario())


def test_a_sender_is_slowed_down_before_it_is_paused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as running, rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel:
            await spam(running, good=14, bad=10)
            assert (await until_level(channel, "slow")).pace == 2
            await asyncio.sleep(0.3)
            answers = [await submit(running, "spammer", "b@x.example") for _ in range(4)]
            assert [answer.HasField("accepted") for answer in answers] == [True, True, False, False]
            assert answers[-1].refused.code == 452
            assert "slowed down: 10 of 24 recipients do not exist" in answers[-1].refused.text

    asyncio.run(scenario())


def test_below_the_minimum_nobody_is_curbed(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Reputation(minimum_recipients=25)) as running, rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel:
            await spam(running, good=0, bad=24)
            await asyncio.sleep(3)  # the roll-ups have them after two seconds
            assert not (await stub(channel).List(reputation_pb2.ReputationRequest())).curbs

    asyncio.run(scenario())
