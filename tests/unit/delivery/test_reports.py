"""Reports that come back: what is read from them, and what strangers can make of them."""

import email

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_core.reply import Reply
from postroom_delivery.bounce import Author, Original, Report, build
from postroom_delivery.classify import table_of
from postroom_delivery.reports import MOST_REPORT, Bounce, Complaint, Failure, Unknown, parse
from postroom_delivery.returns import judge
from postroom_delivery.spool.model import Claim, MessageRow, RecipientRow, State

ID = "01M86SWK2QP69ZZ8FXM8G2T3Q0"
RETURNED = f"Received: from c (c [192.0.2.9])\r\n\tby mta.d.example with ESMTPSA id {ID};\r\n\tTue, 24 Nov 2026 12:00 +0000\r\nFrom: a@d.example\r\n"

# In the form of Postfix's notices.
POSTFIX = f"""\
From: MAILER-DAEMON@mx.x.example (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: a@d.example
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="B"

This is a MIME-encapsulated message.

--B
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

This is the mail system at host mx.x.example.

--B
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.x.example
Arrival-Date: Tue, 24 Nov 2026 12:00:00 +0000 (UTC)

Final-Recipient: rfc822; inner@y.example
Original-Recipient: rfc822;b@x.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <inner@y.example>: Recipient address rejected:
    User unknown in local recipient table

Final-Recipient: rfc822; c@x.example
Action: delayed
Status: 4.4.1

--B
Content-Type: text/rfc822-headers

{RETURNED}
--B--
""".replace("\r\n", "\n").replace("\n", "\r\n")

# In the form of the example of RFC 5965, appendix B.
ARF = f"""\
From: <abusedesk@x.example>
Subject: FW: Earn money
To: <fbl@d.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="B"

--B
Content-Type: text/plain; charset="US-ASCII"

This is an email abuse report.

--B
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <a@d.example>
Original-Rcpt-To: <B@x.example>
Reported-Domain: d.example

--B
Content-Type: message/rfc822

{RETURNED}Subject: Earn money

Spam Spam Spam
--B--
""".replace("\r\n", "\n").replace("\n", "\r\n")


def row(*addresses: str) -> MessageRow:
    recipients = tuple(RecipientRow(n, address, State.DELIVERED, 0, 1, "", "", ambiguous=False) for n, address in enumerate(addresses))
    return MessageRow(ID, "a@d.example", "default/main", "default", "d.example", "u", "", 1, 0, 0, b"", "", "", recipients)


def test_a_bounce_of_another_server_is_read_with_its_original_recipient_and_its_reply() -> None:
    text = "<inner@y.example>: Recipient address rejected: User unknown in local recipient table"
    assert parse(POSTFIX.encode()) == Bounce(ID, (Failure("b@x.example", Reply(550, "5.1.1", text)),))


@pytest.mark.parametrize("address", ["b@x.example", "δοκιμή@x.example"])
def test_our_own_notices_can_be_read(address: str) -> None:
    original = Original(ID, "a@d.example", "", 0, RETURNED.encode())
    report = Report(Claim(1, 1, address, 1, "", ""), "failed", "5.2.2", "full", "mx[192.0.2.1]:25", "552 5.2.2 full")
    headers, body = build(original, [report], Author("mta", "d.example"), "N", 0)
    assert parse(headers + b"\r\n" + body) == Bounce(ID, (Failure(address, Reply(552, "5.2.2", "full")),))


def test_a_delay_is_no_bounce() -> None:
    delayed = parse(POSTFIX.replace("Action: failed", "Action: delayed").encode())
    assert isinstance(delayed, Unknown)
    assert delayed.message_id == ID


def test_a_complaint_is_read() -> None:
    found = parse(ARF.encode())
    assert found == Complaint(ID, "abuse", ("B@x.example",), "reported by SomeGenerator/1.0, d.example", ("a@d.example",))


def test_the_reverse_paths_that_a_report_quotes_are_found() -> None:
    assert parse(ARF.replace(RETURNED, f"Return-Path: <p@q.example>\r\n{RETURNED}").encode()).return_paths == ("a@d.example", "p@q.example")
    assert parse(POSTFIX.replace(RETURNED, f"Return-Path: <p@q.example>\r\n{RETURNED}").encode()).return_paths == ("p@q.example",)


def test_what_is_no_report_is_kept_as_text() -> None:
    found = parse(b"From: x\r\nSubject: Out of office\r\n\r\nI am away.\r\n")
    assert found == Unknown("", "Out of office: I am away.")


@given(st.binary(max_size=2000))
def test_no_octets_make_the_parser_raise(noise: bytes) -> None:
    parse(noise)
    middle = len(ARF) // 2
    parse(ARF.encode()[:middle] + noise + ARF.encode()[middle:])


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n" * 5000,
        b"Content-Type: message/rfc822\r\n\r\n" * 20_000,
        POSTFIX.encode() + b"x" * (2 * MOST_REPORT),
        b"Subject: " + b"\xff" * 100_000,
    ],
)
def test_deep_and_long_reports_end(content: bytes) -> None:
    assert len(str(parse(content))) < 10_000


def test_a_later_bounce_of_an_unknown_mailbox_suppresses_it_for_the_tenant() -> None:
    (told,) = judge(parse(POSTFIX.encode()), row("b@x.example", "c@x.example"), table_of(), 1000)
    assert (told.address, told.event.kind, told.event.classification) == ("b@x.example", "bounced-later", "unknown-user")
    (entry,) = told.entries
    assert (entry.scope, entry.owner, entry.address, entry.reason) == ("tenant", "default", "b@x.example", "bounce")


def test_a_later_bounce_of_a_full_mailbox_is_only_told() -> None:
    full = POSTFIX.replace("550 5.1.1", "552 5.2.2").replace("User unknown in local recipient table", "mailbox full")
    (told,) = judge(parse(full.encode()), row("b@x.example"), table_of(), 1000)
    assert (told.event.classification, told.entries) == ("mailbox-full", ())


def test_a_complaint_keeps_the_domain_away_for_good() -> None:
    (told,) = judge(parse(ARF.encode()), row("b@x.example", "c@x.example"), table_of(), 1000)
    (entry,) = told.entries
    assert (told.event.kind, entry.scope, entry.owner, entry.address, entry.expires_at) == ("complained", "domain", "d.example", "b@x.example", 0)


def test_a_complaint_without_address_is_about_the_only_recipient_or_about_nobody() -> None:
    report = parse(ARF.replace("Original-Rcpt-To: <B@x.example>\r\n", "").encode())
    assert [told.address for told in judge(report, row("b@x.example"), table_of(), 0)] == ["b@x.example"]
    assert judge(report, row("b@x.example", "c@x.example"), table_of(), 0) == []


def test_a_report_about_somebody_who_was_no_recipient_changes_nothing() -> None:
    assert judge(parse(POSTFIX.encode()), row("other@x.example"), table_of(), 0) == []
    assert judge(parse(ARF.encode()), row("other@x.example", "c@x.example"), table_of(), 0) == []


def test_praise_is_told_and_suppresses_nobody() -> None:
    (told,) = judge(parse(ARF.replace("Feedback-Type: abuse", "Feedback-Type: not-spam").encode()), row("b@x.example"), table_of(), 0)
    assert (told.event.kind, told.entries) == ("reported", ())


def test_the_samples_are_messages_for_the_library_too() -> None:
    for sample in (POSTFIX, ARF):
        assert [part.defects for part in email.message_from_string(sample).walk() if part.defects] == []


QMAIL = b"""\
From: MAILER-DAEMON@x.example
Subject: failure notice

Hi. This is the qmail-send program at x.example.

<inner@y.example>:
192.0.2.7 does not like recipient.
Remote host said: 550 5.1.1 no such user here
Giving up on 192.0.2.7.
"""


def test_a_proven_return_path_names_the_recipient_whatever_the_report_says() -> None:
    message = row("b@x.example", "c@x.example")
    (told,) = judge(parse(QMAIL), message, table_of(), 0, "c@x.example")
    assert (told.address, told.event.kind, str(told.event.reply)) == ("c@x.example", "bounced-later", "550 5.1.1 no such user here")
    assert [entry.address for entry in told.entries] == ["c@x.example"]
    assert judge(parse(QMAIL), message, table_of(), 0)[0].entries == ()
    # a DSN that was written about the address behind a forward, or about others
    forwarded = POSTFIX.replace("Original-Recipient: rfc822;b@x.example\r\n", "").encode()
    assert [one.address for one in judge(parse(forwarded), message, table_of(), 0, "c@x.example")] == ["c@x.example"]
    assert [one.address for one in judge(parse(POSTFIX.encode()), message, table_of(), 0, "c@x.example")] == ["c@x.example"]
    assert [one.address for one in judge(parse(ARF.encode()), message, table_of(), 0, "c@x.example")] == ["c@x.example"]


def test_an_answer_of_a_person_suppresses_nobody() -> None:
    (told,) = judge(parse(b"Subject: away\r\n\r\nI am away until 550 days from now.\r\n"), row("b@x.example"), table_of(), 0, "b@x.example")
    assert (told.address, told.event.kind, told.entries) == ("b@x.example", "reported", ())
