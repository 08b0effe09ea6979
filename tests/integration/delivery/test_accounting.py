"""Delivery against a world with faults: each test is one scenario and ends with its accounting in events and copies at the sink."""

import asyncio
import contextlib
import email
import pathlib
from collections.abc import AsyncIterator
from typing import Any

from postroom.v1 import queue_pb2
from postroom_core.documents import DestinationLimit, Pool, ReplyRule, Retry, Route, SmartHost
from postroom_core.replyrule import Action, Class
from postroom_core.testing.certificate import self_signed
from postroom_core.testing.faults import Drop, Endless, GarbageTls, Rule, script
from postroom_core.testing.sink import Sink

from integration.delivery.harness import BODY, FAST, HEADERS, Running, delivery


def kinds(events: list[queue_pb2.Event]) -> list[str]:
    return [event.kind for event in events]


def classes(events: list[queue_pb2.Event]) -> list[str]:
    return [getattr(event, "class") for event in events]


@contextlib.asynccontextmanager
async def world(folder: pathlib.Path, *rules: Rule, pool: Pool = FAST, **sink: Any) -> AsyncIterator[Running]:
    async with delivery(folder, pool, script=script(list(rules)), **sink) as running:
        yield running


def test_a_message_arrives_octet_for_octet(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert kinds(events) == ["accepted", "delivered"]
            assert [message.content for message in running.sink.messages] == [HEADERS + b"\r\n" + BODY]
            assert running.sink.violations == []

    asyncio.run(scenario())


def test_mx_hosts_are_tried_in_order_of_preference_and_a_dead_first_one_costs_nothing(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as running:
            running.dns.set("x.example", "MX", ["20 second.test.", "10 first.test."])
            running.dns.set("first.test", "A", ["127.0.0.9"])  # nothing listens there
            running.dns.set("second.test", "A", ["127.0.0.1"])
            events = await running.until(await running.enqueue("b@x.example"), "delivered", "deferred")
            assert kinds(events) == ["accepted", "delivered"]
            assert events[-1].remote.startswith("second.test[127.0.0.1]")

    asyncio.run(scenario())


def test_a_host_that_greets_with_421_or_554_is_passed_over_for_the_next(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        for greeting in (b"421 4.3.2 busy", b"554 no"):
            folder = tmp_path / greeting[:3].decode()
            async with world(folder, Rule("CONNECT", greeting, session=1)) as running:
                running.dns.set("x.example", "MX", ["10 first.test.", "20 second.test."])
                for name in ("first.test", "second.test"):
                    running.dns.set(name, "A", ["127.0.0.1"])
                events = await running.until(await running.enqueue("b@x.example"), "delivered", "deferred", "bounced")
                assert kinds(events) == ["accepted", "delivered"]
                assert events[-1].remote.startswith("second.test")

    asyncio.run(scenario())


def test_a_4xx_is_retried_after_the_backoff_and_delivered(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"451 4.7.1 Greylisted, try again in 5 minutes", times=1)) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert kinds(events) == ["accepted", "deferred", "delivered"]
            assert classes(events)[1] == "greylist"
            assert (events[1].code, events[1].enhanced) == (451, "4.7.1")
            assert [event.attempt for event in events] == [0, 1, 2]
            assert len(running.sink.messages) == 1

    asyncio.run(scenario())


def test_a_rule_of_the_pool_makes_a_5xx_wait_and_another_makes_a_4xx_final(tmp_path: pathlib.Path) -> None:
    rules = (
        ReplyRule(name="night", code="5xx", pattern="maintenance", classification=Class.NETWORK, action=Action.RETRY),
        ReplyRule(name="full", enhanced_code="x.2.2", classification=Class.MAILBOX_FULL, action=Action.BOUNCE),
    )

    async def scenario() -> None:
        replies = (Rule("RCPT", b"550 5.0.0 Maintenance", argument="b@", times=1), Rule("RCPT", b"452 4.2.2 full", argument="c@", times=1))
        async with world(tmp_path, *replies, pool=FAST.model_copy(update={"reply_rules": rules})) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered", "bounced")
            assert (kinds(events), classes(events)[1]) == (["accepted", "deferred", "delivered"], "network")
            events = await running.until(await running.enqueue("c@x.example"), "delivered", "bounced")
            assert (kinds(events), classes(events)[1]) == (["accepted", "bounced"], "mailbox-full")
            notice = (await running.sink.wait_for(2))[-1]
            assert b"Status: 5.2.2" in notice.content

    asyncio.run(scenario())


def test_a_5xx_ends_in_a_dsn_to_the_sender(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"550 5.1.1 No such user here", argument="gone@")) as running:
            message_id = await running.enqueue("gone@x.example", "b@x.example", envid="env+2Bid")
            await running.sink.wait_for(2)
            events = await running.until(message_id, "bounced")
            assert sorted(kinds([e async for e in running.queue.Events(queue_pb2.EventsRequest(message_id=message_id))])) == [
                "accepted",
                "bounced",
                "delivered",
            ]
            assert classes(events)[-1] == "unknown-user"
            (notice,) = [message for message in running.sink.messages if message.reverse_path == ""]
            assert notice.recipients == ("a@d.example",)
            parsed: Any = email.message_from_bytes(notice.content)
            assert parsed.get_content_type() == "multipart/report"
            assert parsed["Auto-Submitted"] == "auto-replied"
            _, status, returned = parsed.get_payload()
            message_part, recipient_part = status.get_payload()
            assert message_part["Original-Envelope-Id"] == "env+id"
            assert message_part["Reporting-MTA"] == "dns; mta.d.example"
            assert recipient_part["Final-Recipient"] == "rfc822; gone@x.example"
            assert (recipient_part["Action"], recipient_part["Status"]) == ("failed", "5.1.1")
            assert recipient_part["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user here"
            assert b"Subject: test" in returned.as_bytes()

    asyncio.run(scenario())


def test_an_expired_message_ends_in_a_dsn(tmp_path: pathlib.Path) -> None:
    pool = Pool(name="default/main", retry=Retry(max_age=0.5, initial=0.1, maximum=0.2))

    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"452 4.2.2 Mailbox full", argument="b@"), pool=pool) as running:
            events = await running.until(await running.enqueue("b@x.example"), "expired", "delivered")
            assert kinds(events)[-1] == "expired"
            assert set(kinds(events)[1:-1]) == {"deferred"}
            (notice,) = await running.sink.wait_for(1)
            assert b"Status: 4.4.7" in notice.content
            assert b"Diagnostic-Code: smtp; 452 4.2.2 Mailbox full" in notice.content

    asyncio.run(scenario())


def test_a_bounce_of_a_bounce_goes_to_the_dead_letter_list(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"550 5.1.1 no")) as running:
            message_id = await running.enqueue("b@x.example", sender="")
            assert kinds(await running.until(message_id, "dead-letter", "bounced")) == ["accepted", "dead-letter"]
            assert running.sink.messages == []

    asyncio.run(scenario())


def test_notify_never_suppresses_the_dsn(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"550 5.1.1 no")) as running:
            from postroom.v1 import spool_pb2

            message_id = await running.enqueue(recipients=[spool_pb2.Recipient(address="b@x.example", notify=["NEVER"])])
            assert kinds(await running.until(message_id, "bounced")) == ["accepted", "bounced"]
            stats = await running.queue.Stats(queue_pb2.StatsRequest())
            assert dict(stats.recipients) == {"bounced": 1}

    asyncio.run(scenario())


def test_names_that_do_not_exist_bounce_and_names_that_dns_cannot_tell_wait(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as running:
            running.dns.fail("nowhere.example", "NXDOMAIN")
            running.dns.fail("broken.example", "SERVFAIL")
            running.dns.set("nomail.example", "MX", ["0 ."])
            running.dns.set("self.example", "MX", ["10 mta.d.example."])
            running.dns.set("private.example", "MX", ["10 inside.test."])
            running.dns.set("inside.test", "A", ["10.0.0.7", "169.254.169.254"])
            expected = {
                "nowhere.example": ("bounced", "does not exist"),
                "broken.example": ("deferred", "DNS could not answer"),
                "nomail.example": ("bounced", "null MX"),
                "self.example": ("bounced", "lead back to this host"),
                "private.example": ("bounced", "may not be dialled"),
            }
            for domain, (kind, words) in expected.items():
                events = await running.until(await running.enqueue(f"b@{domain}"), "bounced", "deferred", "delivered")
                assert (events[-1].kind, words in events[-1].text) == (kind, True), events[-1]

    asyncio.run(scenario())


def test_only_the_recipients_that_were_refused_for_now_are_tried_again(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"452 4.5.3 Too many recipients", accepted=2, times=3)) as running:
            message_id = await running.enqueue(*(f"r{number}@x.example" for number in range(5)))
            await running.sink.wait_for(2)
            first, second = running.sink.messages
            assert len(first.recipients) == 2
            assert sorted(first.recipients + second.recipients) == [f"r{number}@x.example" for number in range(5)]
            assert message_id

    asyncio.run(scenario())


def test_a_connection_lost_after_the_final_dot_is_ambiguous_and_sent_again(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule(".", Drop(), session=1)) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert kinds(events) == ["accepted", "ambiguous", "delivered"]
            assert (await running.queue.Stats(queue_pb2.StatsRequest())).in_doubt == 1

    asyncio.run(scenario())


def test_a_connection_lost_before_the_data_is_an_ordinary_deferral(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("DATA", Drop(b"421 4.3.2 going down\r\n"), session=1)) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert kinds(events) == ["accepted", "deferred", "delivered"]

    asyncio.run(scenario())


def test_a_reply_without_end_is_cut_and_counts_as_a_network_fault(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("MAIL", Endless(), session=1)) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert kinds(events) == ["accepted", "deferred", "delivered"]
            assert classes(events)[1] == "network"

    asyncio.run(scenario())


def test_tls_is_used_when_it_is_offered(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, extensions=("PIPELINING", "8BITMIME", "STARTTLS")) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert events[-1].tls.startswith("TLSv1.3")
            assert running.sink.messages[0].tls

    asyncio.run(scenario())


def test_a_host_whose_handshake_fails_gets_the_message_in_clear_on_a_new_connection(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("TLS", GarbageTls()), extensions=("PIPELINING", "8BITMIME", "STARTTLS")) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered", "deferred")
            assert kinds(events) == ["accepted", "delivered"]
            assert (events[-1].tls, running.sink.sessions) == ("", 2)

    asyncio.run(scenario())


def test_eight_bit_content_bounces_where_the_peer_does_not_take_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, extensions=("PIPELINING",)) as running:
            events = await running.until(await running.enqueue("b@x.example", body="grüße\r\n".encode()), "bounced", "delivered")
            assert (events[-1].kind, "8-bit" in events[-1].text) == ("bounced", True)

    asyncio.run(scenario())


def test_a_message_larger_than_the_peer_takes_bounces_without_being_sent(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("MAIL", b"550 must not come", argument="a@d.example"), extensions=("SIZE 100",)) as running:
            events = await running.until(await running.enqueue("b@x.example", body=b"x" * 70 + b"\r\n"), "bounced")
            assert "100 at most" in events[-1].text

    asyncio.run(scenario())


def test_a_peer_without_pipelining_gets_one_command_at_a_time(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, extensions=()) as running:
            await running.until(await running.enqueue("b@x.example", "c@x.example"), "delivered")
            assert running.sink.violations == []

    asyncio.run(scenario())


def test_messages_for_one_destination_share_a_connection(tmp_path: pathlib.Path) -> None:
    pool = FAST.model_copy(update={"destination_limits": (DestinationLimit(name="one", match=("*",), max_connections=1),)})

    async def scenario() -> None:
        async with world(tmp_path, pool=pool) as running:
            await asyncio.gather(*(running.enqueue(f"b{number}@x.example") for number in range(20)))
            await running.sink.wait_for(20)
            assert running.sink.sessions == 1
            assert running.sink.violations == []

    asyncio.run(scenario())


def test_a_large_body_is_streamed_and_arrives_unchanged(tmp_path: pathlib.Path) -> None:
    from postroom.v1 import spool_pb2
    from postroom_core.ids import new_message_id

    body = b"".join(b".%07d\r\n" % number for number in range(200_000))

    async def scenario() -> None:
        async with world(tmp_path) as running:
            envelope = running.envelope(new_message_id(running.now()), "b@x.example")
            chunks = [spool_pb2.EnqueueChunk(body=body[at : at + 65536]) for at in range(0, len(body), 65536)]
            chunks[0].envelope.CopyFrom(envelope)
            chunks[-1].end.CopyFrom(spool_pb2.End(header_block=HEADERS, body_size=len(body)))
            response = await running.spool.Enqueue(iter(chunks), timeout=20)
            assert response.accepted.message_id == envelope.message_id
            (message,) = await running.sink.wait_for(1)
            assert message.content == HEADERS + b"\r\n" + body

    asyncio.run(scenario())


def test_a_smart_host_gets_everything_over_verified_tls(tmp_path: pathlib.Path) -> None:
    certificate = self_signed("smart.test")

    async def scenario() -> None:
        (tmp_path / "ca.pem").write_bytes(certificate.certificate)
        async with Sink(tls=certificate) as smart:
            host = SmartHost(host="smart.test", port=smart.port, tls="Required")
            pool = FAST.model_copy(update={"routes": (Route(name="provider", match=("*",), smart_host=host),)})
            async with delivery(tmp_path, pool, ca_file=str(tmp_path / "ca.pem")) as running:
                running.dns.set("smart.test", "A", ["127.0.0.1"])
                events = await running.until(await running.enqueue("b@x.example", "c@y.example"), "delivered", "deferred")
                assert events[-1].kind == "delivered", events[-1]
                assert smart.messages[0].recipients == ("b@x.example", "c@y.example")
                assert smart.messages[0].tls

    asyncio.run(scenario())


def test_people_can_hold_release_bounce_and_delete(tmp_path: pathlib.Path) -> None:
    action = queue_pb2.ActRequest

    async def scenario() -> None:
        slow = FAST.model_copy(update={"retry": Retry(max_age=3600, initial=600, maximum=600)})
        async with world(tmp_path, Rule("RCPT", b"450 4.2.0 later", argument="slow@"), pool=slow) as running:
            held, ended = await running.enqueue("slow@x.example"), await running.enqueue("slow@y.example")
            for message_id in (held, ended):
                await running.until(message_id, "deferred")

            async def act(kind: queue_pb2.ActRequest.Action.ValueType, message_id: str) -> int:
                return (await running.queue.Act(action(action=kind, message_ids=[message_id]))).changed

            assert await act(action.HOLD, held) == 1
            assert await act(action.RETRY, held) == 0
            assert await act(action.RELEASE, held) == 1
            await running.until(held, "released")
            assert await act(action.BOUNCE, ended) == 1
            (notice,) = await running.sink.wait_for(1)
            assert b"bounced by the postmaster" in notice.content

    asyncio.run(scenario())
