"""The dialogue with peers of every kind, over real sockets: what is said, in which order, and what each answer comes to."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from postroom.v1 import queue_pb2, spool_pb2
from postroom_core.documents import DestinationLimit, Retry
from postroom_core.testing.faults import Drop, Rule, Wait, script

from integration.delivery.harness import BODY, FAST, HEADERS, Running, delivery

PIPELINED = ("PIPELINING", "8BITMIME", "DSN", "ENHANCEDSTATUSCODES")
BY_STEPS = ("8BITMIME", "DSN", "ENHANCEDSTATUSCODES")
both_ways = pytest.mark.parametrize("extensions", [PIPELINED, BY_STEPS], ids=["pipelined", "step by step"])
ONE_CONNECTION = FAST.model_copy(update={"destination_limits": (DestinationLimit(name="one", match=("*",), max_connections=1),)})
SLOW = FAST.model_copy(update={"retry": Retry(max_age=3600, initial=600, maximum=600)})
ENDS = ("delivered", "bounced", "deferred", "ambiguous", "expired", "dead-letter")


@contextlib.asynccontextmanager
async def world(folder: pathlib.Path, *rules: Rule, pool: Any = FAST, **sink: Any) -> AsyncIterator[Running]:
    async with asyncio.timeout(40), delivery(folder, pool, script=script(list(rules)), **sink) as running:
        yield running


async def story(running: Running, message_id: str) -> list[tuple[str, str]]:
    """(kind, recipient) of every event so far but the acceptance, in order."""
    request = queue_pb2.EventsRequest(message_id=message_id)
    return [(event.kind, event.recipient) async for event in running.queue.Events(request) if event.kind != "accepted"]


@both_ways
def test_a_refused_mail_is_the_answer_for_every_recipient_whatever_follows(tmp_path: pathlib.Path, extensions: tuple[str, ...]) -> None:
    async def scenario() -> None:
        rules = [Rule("MAIL", b"451 4.3.0 not this one", times=1), Rule("RCPT", b"550 5.5.1 need MAIL", times=2)][
            : 1 if extensions == BY_STEPS else 2
        ]
        async with world(tmp_path, *rules, extensions=extensions) as running:
            message_id = await running.enqueue("b@x.example", "c@x.example")
            events = await running.until(message_id, "delivered", "bounced")
            assert [(event.kind, event.code) for event in events[1:3]] == [("deferred", 451), ("deferred", 451)]
            await running.sink.wait_for(1)
            assert running.sink.messages[0].recipients == ("b@x.example", "c@x.example")
            assert running.sink.violations == []

    asyncio.run(scenario())


def test_a_go_ahead_though_every_recipient_was_refused_is_ended_by_a_lone_dot_and_the_session_goes_on(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        class Obedient:
            """Says 354 to DATA although nobody was accepted, as some servers do, and takes whatever comes up to the dot."""

            def __init__(self) -> None:
                self.waits = asyncio.Event()

            def __call__(self, session: Any, verb: str, argument: str) -> bytes | None:
                if verb == "RCPT" and "gone@" in argument:
                    return b"550 5.1.1 who"
                if verb == "DATA" and session.accepted == 0:
                    return b"354 go on"
                # The lone dot arrives where a command is read.
                return b"554 5.5.1 no recipients" if verb == "?" else None

        async with asyncio.timeout(30), delivery(tmp_path, ONE_CONNECTION, script=Obedient()) as running:
            gone = await running.enqueue("gone@x.example", sender="")
            assert (await running.until(gone, *ENDS))[-1].kind == "dead-letter"
            assert (await running.until(await running.enqueue("b@x.example"), *ENDS))[-1].kind == "delivered"
            assert [message.content for message in running.sink.messages] == [HEADERS + b"\r\n" + BODY]

    asyncio.run(scenario())


@both_ways
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_421_anywhere_ends_the_session_and_is_told_as_it_was_said(tmp_path: pathlib.Path, verb: str, extensions: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule(verb, b"421 4.3.2 going down for tea", session=1), extensions=extensions) as running:
            message_id = await running.enqueue("b@x.example", "c@x.example")
            events = await running.until(message_id, "delivered", "bounced", "ambiguous")
            assert {(event.kind, event.code, event.text) for event in events[1:3]} == {("deferred", 421, "going down for tea")}
            assert (events[-1].kind, len(running.sink.messages)) == ("delivered", 1)

    asyncio.run(scenario())


def test_recipients_that_were_one_too_many_follow_at_once_in_another_transaction(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"452 4.5.3 Too many recipients", accepted=50), pool=SLOW) as running:
            names = [f"r{number}@x.example" for number in range(90)]
            await running.enqueue(*names)
            await running.sink.wait_for(2)
            assert [len(message.recipients) for message in running.sink.messages] == [50, 40]
            assert sorted(name for message in running.sink.messages for name in message.recipients) == sorted(names)
            assert running.sink.sessions == 1

    asyncio.run(scenario())


def test_a_full_mailbox_is_not_taken_for_one_recipient_too_many(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("RCPT", b"452 4.2.2 Mailbox full", argument="full@"), pool=SLOW) as running:
            message_id = await running.enqueue("full@x.example", "b@x.example")
            await running.sink.wait_for(1)
            await running.until(message_id, "deferred")
            assert sorted(await story(running, message_id)) == [("deferred", "full@x.example"), ("delivered", "b@x.example")]

    asyncio.run(scenario())


def test_the_limits_that_a_peer_announces_are_kept(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        extensions = (*PIPELINED, "LIMITS MAILMAX=2 RCPTMAX=3 RCPTDOMAINMAX=1")
        async with world(tmp_path, pool=ONE_CONNECTION, extensions=extensions) as running:
            await running.enqueue(*(f"r{number}@x.example" for number in range(8)))
            await running.sink.wait_for(3)
            assert [len(message.recipients) for message in running.sink.messages] == [3, 3, 2]
            assert [message.session for message in running.sink.messages] == [1, 1, 2]

    asyncio.run(scenario())


def test_a_final_reply_that_comes_late_is_waited_for_and_makes_no_second_copy(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        release = asyncio.Event()
        async with world(tmp_path, Rule(".", Wait(release, b"250 2.0.0 at last"))) as running:
            message_id = await running.enqueue("b@x.example")
            while (await running.queue.Stats(queue_pb2.StatsRequest())).recipients.get("leased", 0) != 1 or not running.sink.sessions:
                await asyncio.sleep(0.01)
            release.set()
            events = await running.until(message_id, *ENDS)
            assert (events[-1].kind, events[-1].text, len(running.sink.messages)) == ("delivered", "at last", 1)

    asyncio.run(scenario())


def test_an_idle_connection_that_the_peer_has_dropped_costs_no_attempt(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        # The peer ends the connection as it hears the second MAIL: exactly what a race with its idle timeout looks like.
        for action in (Drop(), Drop(b"421 4.4.2 idle too long\r\n")):
            folder = tmp_path / str(len(action.reply))
            async with world(folder, Rule("MAIL", action, session=1, message=2), pool=ONE_CONNECTION) as running:
                for number in range(2):
                    events = await running.until(await running.enqueue(f"b{number}@x.example"), *ENDS)
                    assert (events[-1].kind, events[-1].attempt) == ("delivered", 1)
                assert running.sink.sessions == 2

    asyncio.run(scenario())


def test_an_answer_before_the_end_of_the_message_delivers_nothing(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("DATA", b"354 go\r\n250 2.0.0 thank you, I have it", session=1)) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert [event.kind for event in events] == ["accepted", "deferred", "delivered"]
            assert "before the end" in events[1].text

    asyncio.run(scenario())


# CHUNKING and BINARYMIME


def test_a_peer_with_chunking_gets_the_message_by_bdat_without_added_dots(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        rules = [Rule("DATA", b"502 5.5.1 no DATA here")]
        async with world(tmp_path, *rules, pool=ONE_CONNECTION, extensions=(*PIPELINED, "CHUNKING")) as running:
            for number in range(2):
                await running.until(await running.enqueue(f"b{number}@x.example"), "delivered")
            assert [message.content for message in running.sink.messages] == [HEADERS + b"\r\n" + BODY] * 2
            assert (running.sink.violations, running.sink.sessions) == ([], 1)

    asyncio.run(scenario())


def test_a_refusal_after_bdat_is_the_answer_and_a_lost_one_is_ambiguous(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        rules = [Rule(".", b"452 4.3.1 no room", times=1), Rule(".", Drop(), times=1)]
        async with world(tmp_path, *rules, extensions=("CHUNKING",)) as running:
            events = await running.until(await running.enqueue("b@x.example"), "delivered")
            assert [event.kind for event in events] == ["accepted", "deferred", "ambiguous", "delivered"]
            assert running.sink.violations == []

    asyncio.run(scenario())


def test_no_octet_of_the_message_follows_when_every_recipient_was_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        rule = Rule("RCPT", b"550 5.1.1 who", argument="gone@")
        async with world(tmp_path, rule, pool=ONE_CONNECTION, extensions=(*PIPELINED, "CHUNKING")) as running:
            assert (await running.until(await running.enqueue("gone@x.example", sender=""), *ENDS))[-1].kind == "dead-letter"
            assert (await running.until(await running.enqueue("b@x.example"), *ENDS))[-1].kind == "delivered"
            assert (running.sink.violations, running.sink.sessions) == ([], 1)

    asyncio.run(scenario())


BINARY = spool_pb2.MailOptions(binary=True)


def test_binary_content_goes_octet_for_octet_to_a_peer_that_takes_it_and_comes_back_from_any_other(tmp_path: pathlib.Path) -> None:
    body = b"\0\x01\xff bare \r and \n" + b"x" * 5000 + b"\r\n.\r\nno line end"

    async def scenario() -> None:
        async with world(tmp_path / "takes", extensions=(*PIPELINED, "CHUNKING", "BINARYMIME")) as running:
            await running.until(await running.enqueue("b@x.example", body=body, options=BINARY), "delivered")
            (message,) = running.sink.messages
            assert message.content == HEADERS + b"\r\n" + body
            assert (message.mail_parameters["BODY"], running.sink.violations) == ("BINARYMIME", [])
        async with world(tmp_path / "not", extensions=(*PIPELINED, "CHUNKING")) as running:
            events = await running.until(await running.enqueue("b@x.example", body=body, options=BINARY), *ENDS)
            assert (events[-1].kind, "binary content" in events[-1].text) == ("bounced", True)
            (notice,) = await running.sink.wait_for(1)
            assert b"Status: 5.6.3" in notice.content

    asyncio.run(scenario())


def test_no_bare_line_end_leaves_by_data(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, extensions=PIPELINED) as running:
            body = b"one\r\n\n.\r\nMAIL FROM:<evil@x.example>\r\n"
            events = await running.until(await running.enqueue("b@x.example", body=body, sender=""), *ENDS)
            assert (events[-1].kind, running.sink.messages) == ("dead-letter", [])

    asyncio.run(scenario())


# SMTPUTF8

UTF8 = spool_pb2.MailOptions(smtputf8=True)


@pytest.mark.parametrize(
    ("recipient", "headers", "needed"),
    [
        pytest.param("b@x.example", HEADERS, False, id="a plain message that came with SMTPUTF8"),
        pytest.param("jörg@x.example", HEADERS, True, id="an address"),
        pytest.param("b@x.example", "From: Jörg <a@d.example>\r\n".encode(), True, id="the header"),
    ],
)
def test_smtputf8_is_asked_for_only_where_it_is_needed(tmp_path: pathlib.Path, recipient: str, headers: bytes, needed: bool) -> None:
    async def scenario() -> None:
        async with world(tmp_path / "with") as running:
            await running.until(await running.enqueue(recipient, headers=headers, options=UTF8), "delivered")
            (message,) = running.sink.messages
            assert ("SMTPUTF8" in message.mail_parameters, message.recipients) == (needed, (recipient,))
            assert running.sink.violations == []
        async with world(tmp_path / "without", extensions=PIPELINED) as running:
            events = await running.until(await running.enqueue(recipient, headers=headers, options=UTF8, sender=""), *ENDS)
            assert events[-1].kind == ("dead-letter" if needed else "delivered")
            assert ("SMTPUTF8" in events[-1].text) == needed

    asyncio.run(scenario())


def test_only_the_recipient_whose_address_needs_smtputf8_comes_back(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, extensions=PIPELINED) as running:
            message_id = await running.enqueue("jörg@x.example", "b@x.example", options=UTF8)
            await running.sink.wait_for(2)
            await running.until(message_id, "bounced")
            assert sorted(await story(running, message_id)) == [("bounced", "jörg@x.example"), ("delivered", "b@x.example")]
            (notice,) = [message for message in running.sink.messages if not message.reverse_path]
            assert b"Status: 5.6.7" in notice.content

    asyncio.run(scenario())


# DSN


def test_dsn_parameters_are_passed_on_octet_for_octet_and_then_no_relayed_notice_is_sent(tmp_path: pathlib.Path) -> None:
    recipient = spool_pb2.Recipient(address="b@x.example", notify=["SUCCESS", "DELAY"], orcpt="rfc822;B+2BTag@X.Example")

    async def scenario() -> None:
        for extensions, told in ((PIPELINED, 1), (("PIPELINING",), 2)):
            async with world(tmp_path / str(told), extensions=extensions) as running:
                await running.until(await running.enqueue(recipients=[recipient], ret="HDRS", envid="Env+2BId"), "delivered")
                await running.sink.wait_for(told)
                message = next(message for message in running.sink.messages if message.reverse_path)
                if told == 1:
                    assert {name: message.mail_parameters[name] for name in ("RET", "ENVID")} == {"RET": "HDRS", "ENVID": "Env+2BId"}
                    assert message.rcpt_parameters == ({"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;B+2BTag@X.Example"},)
                else:
                    assert message.rcpt_parameters == ({},)
                    assert b"Action: relayed" in running.sink.messages[1].content

    asyncio.run(scenario())


# Hosts


def test_521_is_final_for_a_host_but_not_while_another_may_take_the_message(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, Rule("CONNECT", b"521 5.3.2 no mail here")) as running:
            running.dns.set("only.example", "MX", ["10 mx.test."])
            running.dns.set("two.example", "MX", ["10 dead.test.", "20 mx.test."])
            running.dns.set("dead.test", "A", ["127.0.0.9"])
            assert (await running.until(await running.enqueue("b@only.example", sender=""), *ENDS))[-1].code == 521
            assert (await running.until(await running.enqueue("b@two.example"), *ENDS))[-1].kind == "deferred"

    asyncio.run(scenario())


def test_many_mx_hosts_cnames_and_truncated_answers_lead_to_the_host(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as running:
            running.dns.set("fifty.example", "MX", [f"{number} host-number-{number}.test." for number in range(50)])
            running.dns.set("host-number-3.test", "A", ["127.0.0.1"])
            running.dns.set("alias.example", "CNAME", ["real.example."])
            running.dns.set("real.example", "MX", ["10 chain.test."])
            running.dns.set("chain.test", "CNAME", ["link.test."])
            running.dns.set("link.test", "CNAME", ["mx.test."])
            running.dns.set("big.example", "MX", ["10 mx.test."])
            running.dns.fail("big.example", "TRUNCATED")
            for domain, remote in (("fifty.example", "host-number-3.test"), ("alias.example", "chain.test"), ("big.example", "mx.test")):
                events = await running.until(await running.enqueue(f"b@{domain}"), *ENDS)
                assert (events[-1].kind, events[-1].remote.partition("[")[0]) == ("delivered", remote), events[-1]
            assert {query.transport for query in running.dns.queries if query.name.rstrip(".") == "big.example"} == {"udp", "tcp"}

    asyncio.run(scenario())


def test_a_domain_that_was_there_a_moment_ago_is_not_believed_to_be_gone(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as running:
            running.dns.set("x.example", "MX", ["10 mx.test."], ttl=0)
            assert (await running.until(await running.enqueue("b@x.example"), *ENDS))[-1].kind == "delivered"
        async with world(tmp_path) as running:  # also after a restart
            running.dns.fail("x.example", "NXDOMAIN")
            message_id = await running.enqueue("b@x.example")
            event = (await running.until(message_id, *ENDS))[-1]
            assert (event.kind, "within the last day" in event.text) == ("deferred", True)

    asyncio.run(scenario())
