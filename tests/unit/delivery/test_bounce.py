"""Delivery status notifications: their parts, their fields, and that a foreign detector understands every kind."""

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage, Message
from typing import Any

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from postroom_delivery.bounce import Author, Original, Report, build
from postroom_delivery.spool.model import Claim

NOW = 1_790_000_000_000
AUTHOR = Author("mta.d.example", "d.example")
HEADERS = b"From: a@d.example\r\nTo: b@x.example\r\nSubject: hi\r\n"


def claim(address: str = "b@x.example", orcpt: str = "") -> Claim:
    return Claim(1, 1, address, 3, "", orcpt)


def report(action: str = "failed", address: str = "b@x.example", orcpt: str = "", **values: Any) -> Report:
    status = {"failed": "5.1.1", "delayed": "4.4.1", "relayed": "2.0.0"}[action]
    return Report(claim(address, orcpt), action, status, "the reason", "mx.x.example[192.0.2.1]:25", "550 5.1.1 who", **values)


def original(**values: Any) -> Original:
    return replace(Original("01", "a@d.example", "", NOW, HEADERS), **values)


def made(message: Original, *reports: Report) -> Message:
    headers, body = build(message, reports, AUTHOR, "N1", NOW)
    assert max(len(line) for line in (headers + b"\r\n" + body).split(b"\r\n")) <= 998
    parsed = email.message_from_bytes(headers + b"\r\n" + body, policy=email.policy.SMTPUTF8)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert [part.defects for part in parsed.walk()] == [[]] * len(list(parsed.walk()))
    return parsed


def parts(message: Message) -> list[Any]:
    payload: Any = message.get_payload()
    return list(payload)


@pytest.mark.parametrize("action", ["failed", "delayed", "relayed"])
def test_every_kind_has_three_parts_and_says_that_no_person_wrote_it(action: str) -> None:
    message = made(original(), report(action))
    assert [part.get_content_type() for part in parts(message)] == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert (message["Auto-Submitted"], message["From"]) == ("auto-replied", "Mail Delivery System <mailer-daemon@d.example>")
    assert message["To"] == "a@d.example"
    assert parts(message)[1].get_payload()[1]["Action"] == action


@pytest.mark.parametrize(("action", "kind"), [("failed", "permanent"), ("delayed", "temporary"), ("relayed", "none")])
def test_a_foreign_detector_understands_every_kind(action: str, kind: str) -> None:
    headers, body = build(original(), [report(action), report(action, "c@x.example")], AUTHOR, "N1", NOW)
    temporary, permanent = all_failures(email.message_from_bytes(headers + b"\r\n" + body))
    addresses = {b"b@x.example", b"c@x.example"}
    assert set(temporary) == (addresses if kind == "temporary" else set())
    assert set(permanent) == (addresses if kind == "permanent" else set())


def test_the_fields_of_a_failure() -> None:
    message = made(original(envid="env+2Bid"), report(orcpt="rfc822;B+2Bx@X.example", attempted_at=NOW))
    general, recipient = parts(message)[1].get_payload()
    assert general["Original-Envelope-Id"] == "env+id"
    assert general["Reporting-MTA"] == "dns; mta.d.example"
    assert general["Arrival-Date"].endswith("+0000")
    assert dict(recipient.items()) == {
        "Original-Recipient": "rfc822;B+x@X.example",
        "Final-Recipient": "rfc822; b@x.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.x.example",
        "Diagnostic-Code": "smtp; 550 5.1.1 who",
        "Last-Attempt-Date": general["Arrival-Date"],
    }


def test_a_delay_says_until_when_attempts_go_on() -> None:
    recipient = parts(made(original(), report("delayed", retry_until=NOW + 3_600_000)))[1].get_payload()[1]
    assert recipient["Will-Retry-Until"] == "Mon, 21 Sep 2026 15:13:20 +0000"


def test_only_a_failure_returns_the_content() -> None:
    full = original(body=b"the text\r\n")
    assert parts(made(full, report()))[2].get_content_type() == "message/rfc822"
    assert b"the text" in parts(made(full, report()))[2].as_bytes()
    assert parts(made(full, report("delayed")))[2].get_content_type() == "text/rfc822-headers"


def test_eight_bit_content_is_returned_as_it_is_and_declared() -> None:
    headers, body = build(original(body="grüße\r\n".encode()), [report()], AUTHOR, "N1", NOW)
    assert "grüße\r\n".encode() in body
    assert b"Content-Transfer-Encoding: 8bit\r\n" in headers
    assert b"message/rfc822\r\nContent-Transfer-Encoding: 8bit" in body


@pytest.mark.parametrize(
    ("values", "recipient"),
    [
        ({"reverse_path": "jürgen@d.example"}, "b@x.example"),
        ({}, "δοκιμή@παράδειγμα.example"),
        ({"smtputf8": True, "headers": "Subject: grüße\r\n".encode()}, "b@x.example"),
    ],
)
def test_addresses_outside_of_ascii_make_an_internationalized_dsn(values: dict[str, Any], recipient: str) -> None:
    headers, body = build(original(body=b"x\r\n", **values), [report(address=recipient)], AUTHOR, "N1", NOW)
    assert b"Content-Type: message/global-delivery-status" in body
    assert b"Content-Type: message/global\r\n" in body
    kind = "rfc822" if recipient.isascii() else "utf-8"
    assert f"Final-Recipient: {kind}; {recipient}\r\n".encode() in body
    assert headers.isascii() is ("reverse_path" not in values)


def test_a_utf8_orcpt_stays_as_it_came() -> None:
    _, body = build(original(), [report(address="é@x.example", orcpt=r"utf-8;\x{E9}+2B@x.example")], AUTHOR, "N1", NOW)
    assert rb"Original-Recipient: utf-8;\x{E9}+2B@x.example" in body


@given(st.text(min_size=1, max_size=3000))
def test_nothing_that_a_peer_says_adds_a_field_or_a_long_line(diagnostic: str) -> None:
    """Invariant: the status part has the fields that we wrote, in lines that a mail server takes, whatever the reply."""
    one = Report(claim(), "failed", "5.0.0", diagnostic, "mx[192.0.2.1]:25", diagnostic)
    headers, body = build(original(), [one], AUTHOR, "N1", NOW)
    assert all(len(line) <= 998 for line in body.split(b"\r\n"))
    assert b"\n" not in body.replace(b"\r\n", b"") and b"\r" not in body.replace(b"\r\n", b"")
    status = parts(email.message_from_bytes(headers + b"\r\n" + body))[1]
    assert [field for group in status.get_payload() for field in group] == [
        *("Reporting-MTA", "X-Postroom-Message-ID", "Arrival-Date"),
        *("Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"),
    ]


def test_an_envelope_id_with_encoded_line_ends_stays_encoded() -> None:
    general = parts(made(original(envid="a+0D+0AX-Evil:+20b"), report()))[1].get_payload()[0]
    assert general["Original-Envelope-Id"] == "a+0D+0AX-Evil:+20b"
    assert "X-Evil" not in general


def test_the_message_is_a_message_for_another_parser() -> None:
    message = made(original(), report())
    assert isinstance(message, EmailMessage)
    assert message["Message-ID"] == "<N1@d.example>"
