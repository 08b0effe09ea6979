"""One receiver's fault each, and its accounting: received, deferred, ended."""

import asyncio
import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from postroom_core.testing.faults import Drop, Endless, Rule, script

from integration.delivery.harness import Running, delivery

ENDS = ("delivered", "bounced", "expired", "dead-letter")
Counts = collections.Counter[str]


def told(
    folder: pathlib.Path, rules: Sequence[Rule] = (), *, sender: str = "a@d.example", prepare: Any = None, **sink: Any
) -> tuple[Counts, Running]:
    """The kinds of events of one message to its end, and what was running."""

    async def scenario() -> tuple[Counts, Running]:
        async with asyncio.timeout(25), delivery(folder, script=script(rules), **sink) as running:
            if prepare is not None:
                prepare(running)
            message_id = await running.enqueue("b@x.example", sender=sender, **({"body": "é\r\n".encode()} if "extensions" in sink else {}))
            events = await running.until(message_id, *ENDS)
            if events[-1].kind == "bounced":
                await running.sink.wait_for(1)
            return collections.Counter(event.kind for event in events), running

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(Rule("RCPT", b"451 4.3.0 later", times=1), id="4xx at RCPT"),
        pytest.param(Rule("DATA", b"451 4.3.0 later", times=1), id="4xx at DATA"),
        pytest.param(Rule(".", b"451 4.3.0 later", times=1), id="4xx after the dot"),
        pytest.param(Rule("RCPT", Endless(), times=1), id="a reply without an end"),
    ],
)
def test_a_deferred_recipient_is_delivered_by_a_later_attempt(tmp_path: pathlib.Path, rule: Rule) -> None:
    counts, running = told(tmp_path, [rule])
    assert counts["deferred"] == 1
    assert counts["delivered"] == 1
    assert len(running.sink.messages) == 1
    assert running.sink.violations == []


def test_a_refused_recipient_is_told_to_the_sender(tmp_path: pathlib.Path) -> None:
    counts, running = told(tmp_path, [Rule("RCPT", b"550 5.1.1 who", argument="b@x.example")])
    assert counts["bounced"] == 1
    assert len(running.sink.messages) == 1


def test_a_bounce_of_a_bounce_is_a_dead_letter_and_tells_nobody(tmp_path: pathlib.Path) -> None:
    counts, running = told(tmp_path, [Rule("RCPT", b"550 5.1.1 who")], sender="")
    assert counts["dead-letter"] == 1
    assert running.sink.messages == []


def test_a_reply_lost_after_the_dot_is_ambiguous_and_sent_again(tmp_path: pathlib.Path) -> None:
    counts, running = told(tmp_path, [Rule(".", Drop(), times=1)])
    assert counts["ambiguous"] == 1
    assert counts["delivered"] == 1
    assert len(running.sink.messages) >= 1


def test_eight_bit_content_for_a_receiver_without_8bitmime_bounces(tmp_path: pathlib.Path) -> None:
    counts, _ = told(tmp_path, extensions=("SIZE 1000000",))
    assert counts["bounced"] == 1


def test_a_domain_with_a_null_mx_bounces(tmp_path: pathlib.Path) -> None:
    counts, _ = told(tmp_path, prepare=lambda running: running.dns.set("x.example", "MX", ["0 ."]))
    assert counts["bounced"] == 1


def test_a_dead_first_mx_is_followed_by_the_second_in_the_same_attempt(tmp_path: pathlib.Path) -> None:
    def prepare(running: Running) -> None:
        running.dns.set("x.example", "MX", ["10 dead.test.", "20 mx.test."])
        running.dns.set("dead.test", "A", ["127.0.0.9"])

    counts, _ = told(tmp_path, prepare=prepare)
    assert counts["deferred"] == 0
    assert counts["delivered"] == 1


def test_a_private_mx_that_is_not_allowed_gets_no_connection(tmp_path: pathlib.Path) -> None:
    def prepare(running: Running) -> None:
        running.dns.set("x.example", "MX", ["10 inside.test."])
        running.dns.set("inside.test", "A", ["169.254.169.254"])

    counts, _ = told(tmp_path, prepare=prepare)
    assert counts["bounced"] == 1
