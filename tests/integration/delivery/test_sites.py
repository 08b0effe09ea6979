"""Domains with the same MX set share one destination: limits, connections, back-off. Each test ends with its accounting."""

from __future__ import annotations

import asyncio
import pathlib

from postroom.v1 import queue_pb2
from postroom_core.documents import DestinationLimit, Pool, Retry
from postroom_core.testing.faults import Rule, script
from postroom_delivery import routing

from integration.delivery.harness import Running, delivery

RETRY = Retry(max_age=30, initial=0.1, maximum=0.2)


def pool(*limits: DestinationLimit) -> Pool:
    return Pool(name="default/main", retry=RETRY, destination_limits=limits)


async def destinations(running: Running) -> dict[str, queue_pb2.DestinationStats]:
    return {found.destination: found for found in (await running.queue.Stats(queue_pb2.StatsRequest())).destinations}


def test_thirty_domains_of_one_provider_share_two_connections_and_all_get_their_mail(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        opened: list[int] = []
        worlds: list[Running] = []
        limit = DestinationLimit(name="provider", match=("mx:mx.test",), max_connections=2)
        async with delivery(tmp_path, pool(limit), on_message=lambda _: opened.append(worlds[0].sink.open_sessions)) as running:
            worlds.append(running)
            messages = [await running.enqueue(f"b@x{number}.example", f"c@x{number}.example") for number in range(30)]
            for message_id in messages:
                events = await running.until(message_id, "deferred", "bounced", "delivered")
                assert [event.kind for event in events] == ["accepted", "delivered"]
            assert len(opened) == 30
            # A domain whose site is not known yet is looked up under its own name, which opens no connection.
            assert max(opened) <= 2

    asyncio.run(scenario())


def test_a_message_with_recipients_at_two_domains_of_a_site_arrives_once_at_each(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path, pool()) as running:
            for _ in range(2):  # the second time the site is known at the accept
                await running.until(await running.enqueue("b@x.example", "b@y.example"), "delivered")
            await running.sink.wait_for(4)
            arrived = sorted(recipient for message in running.sink.messages for recipient in message.recipients)
            assert arrived == ["b@x.example"] * 2 + ["b@y.example"] * 2

    asyncio.run(scenario())


def test_a_domain_that_a_limit_names_keeps_a_destination_of_its_own() -> None:
    named = pool(DestinationLimit(name="one", match=("x.example",)))
    assert routing.destination_of(named, "x.example", "mx:mx.test") == "x.example"
    assert routing.destination_of(named, "y.example", "mx:mx.test") == "mx:mx.test"
    assert routing.destination_of(named, "y.example", None) == "y.example"


def test_a_site_is_named_by_its_most_preferred_host_and_providers_with_a_host_for_each_customer_are_one() -> None:
    assert routing.site_of("a.example", [(10, "b.test"), (5, "z.test"), (5, "c.test")]) == "mx:c.test"
    assert routing.site_of("a.example", [(0, "a-example.mail.protection.outlook.com")]) == "mx:*.mail.protection.outlook.com"
    assert routing.site_of("a.example", []) == "a.example"


def test_a_site_that_throttles_is_asked_for_less_and_stats_show_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path, pool(), script=script([Rule("MAIL", b"421 4.7.0 too many messages, slow down", times=1)])) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert [event.kind for event in events] == ["accepted", "deferred", "delivered"]
            assert 0.4 < (await destinations(running))["mx:mx.test"].pace < 0.6

    asyncio.run(scenario())
