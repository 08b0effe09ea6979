"""What a worker holds comes back although the spool was away: the slot of its connection, and what it could not settle."""

import asyncio
import pathlib

import pytest

from postroom_core.documents import DestinationLimit
from postroom_core.errors import Unavailable
from postroom_delivery.sites import Sites
from postroom_delivery.spool.model import Batch
from postroom_delivery.spool.sqlite import SqliteSpool

from integration.delivery.harness import FAST, delivery


def test_the_only_slot_of_a_destination_is_not_lost(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = SqliteSpool.release_slot
    refused = asyncio.Event()

    async def once(spool: SqliteSpool, now: int, batch: Batch, blocked_until: int) -> None:
        if not refused.is_set() and batch.key.destination.startswith("mx:"):  # before it moves to its site a message has a slot of its domain
            refused.set()
            raise Unavailable("spool: away for a moment")
        await given_back(spool, now, batch, blocked_until)

    monkeypatch.setattr(SqliteSpool, "release_slot", once)
    only_one = DestinationLimit(name="all", match=("*",), max_connections=1, messages_per_connection=1)

    async def scenario() -> None:
        async with asyncio.timeout(30), delivery(tmp_path, FAST.model_copy(update={"destination_limits": (only_one,)})) as running:
            await running.until(await running.enqueue("b@x.example"), "delivered")
            await refused.wait()
            await running.until(await running.enqueue("b@x.example"), "delivered")

    asyncio.run(scenario())


def test_what_a_worker_could_not_finish_is_tried_again_by_the_same_process(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process lives and renews every lease: nothing else would ever take the message back."""
    look, failed = Sites.look, asyncio.Event()

    async def once(sites: Sites, domain: str) -> None:
        if not failed.is_set():
            failed.set()
            raise Unavailable("spool: away for longer than a lease")
        await look(sites, domain)

    monkeypatch.setattr(Sites, "look", once)

    async def scenario() -> None:
        async with asyncio.timeout(30), delivery(tmp_path, FAST) as running:
            await running.until(await running.enqueue("b@x.example"), "delivered")

    asyncio.run(scenario())
    assert failed.is_set()
