"""What a message needs of its peer, and what can leave in a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_core.reply import Reply
from postroom_delivery import needs
from postroom_delivery.dialogue import DotStuffer, Extensions, LineEnds, mail_command, parse_ehlo, rcpt_command
from postroom_delivery.outcome import Delivered, Outcome, from_reply
from postroom_delivery.spool.model import Claim, ClaimedMessage, MailOptions


def claim(number: int, address: str = "", **fields: str) -> Claim:
    return Claim(number, 1, address or f"r{number}@x.example", 0, fields.get("notify", ""), fields.get("orcpt", ""))


def message(
    options: MailOptions | None = None, *, headers: bytes = b"From: a\r\n", reverse_path: str = "a@d.example", eight_bit: bool = False
) -> ClaimedMessage:
    return ClaimedMessage(
        "m", "t", "d.example", reverse_path, headers, 4, eight_bit, 0, 1, "", "", "", b"body", (claim(1),), options or MailOptions()
    )


def offers(*lines: str) -> Extensions:
    return parse_ehlo(Reply(250, "", "\n".join(["mx.test", *lines])))


@pytest.mark.parametrize(
    ("what", "extensions", "status"),
    [
        (message(), offers(), None),
        (message(MailOptions(smtputf8=True)), offers(), None),
        (message(), offers("SIZE 10"), "5.3.4"),
        (message(), offers("SIZE"), None),
        (message(), offers("SIZE 0"), None),
        (message(), offers("SIZE ²"), None),
        (message(eight_bit=True), offers(), "5.6.3"),
        (message(eight_bit=True), offers("8bitmime"), None),
        (message(MailOptions(binary=True), eight_bit=True), offers("8BITMIME", "CHUNKING"), "5.6.3"),
        (message(MailOptions(binary=True), eight_bit=True), offers("BINARYMIME"), "5.6.3"),
        (message(MailOptions(binary=True), eight_bit=True), offers("CHUNKING", "BINARYMIME"), None),
        (message(MailOptions(smtputf8=True), headers="From: é\r\n".encode()), offers("8BITMIME"), "5.6.7"),
        (message(headers="From: é\r\n".encode(), eight_bit=True), offers("8BITMIME"), None),
        (message(MailOptions(smtputf8=True), reverse_path="é@d.example"), offers(), "5.6.7"),
        (message(MailOptions(smtputf8=True), reverse_path="é@d.example"), offers("SMTPUTF8"), None),
        (message(reverse_path="a\r\nRCPT TO:<x@y>@d.example"), offers(), "5.1.7"),
    ],
)
def test_what_a_peer_cannot_take_comes_back_with_its_reason(what: ClaimedMessage, extensions: Extensions, status: str | None) -> None:
    refused = needs.refusal(what, extensions, "mx.test")
    assert (refused.cause.status if refused else None) == status


def test_an_address_that_no_command_can_carry_comes_back_alone() -> None:
    refused = needs.recipient_refusal(claim(1, "a\nb@x.example"), offers(), "mx.test")
    assert refused is not None
    assert refused.cause.status == "5.1.3"
    assert needs.recipient_refusal(claim(2), offers(), "mx.test") is None


@given(st.text(), st.text(), st.booleans())
def test_nothing_can_be_injected_by_an_address_or_a_parameter(address: str, orcpt: str, utf8: bool) -> None:
    """Invariant: a command is one line, whoever stored its parts; or it is not made at all (A7)."""
    try:
        line = rcpt_command(claim(1, address or "x", orcpt=orcpt), offers("DSN", "SMTPUTF8"), utf8=utf8)
    except ValueError:
        return
    assert line.endswith(b"\r\n")
    assert not set(line[:-2]) & set(range(32))


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(0, 9), st.integers(0, 3))
def test_transactions_keep_the_limits_and_lose_nobody(domains: list[str], most: int, most_domains: int) -> None:
    """Invariant: every recipient is in exactly one transaction, none of which exceeds RCPTMAX or RCPTDOMAINMAX; 0 is no limit."""
    claims = [claim(number, f"r@{domain}") for number, domain in enumerate(domains)]
    groups = needs.transactions(claims, offers(f"LIMITS RCPTMAX={most} RCPTDOMAINMAX={most_domains} MAILMAX=x"))
    assert [one for group in groups for one in group] == claims
    assert all(0 < len(group) <= (most or len(claims)) for group in groups)
    assert all(len({one.address for one in group}) <= (most_domains or 3) for group in groups)


def test_only_what_came_too_late_in_a_transaction_that_took_others_is_sent_at_once() -> None:
    taken, late, full = claim(1), claim(2), claim(3)
    too_many, mailbox = from_reply(Reply(452, "4.5.3", "Too many recipients")), from_reply(Reply(452, "4.2.2", "full"))
    outcomes: dict[Claim, Outcome] = {taken: Delivered(Reply(250, "", "ok")), late: too_many, full: mailbox}
    assert needs.next_transaction(outcomes) == (late,)
    assert needs.next_transaction({late: too_many, full: mailbox}) == ()
    assert needs.next_transaction({taken: Delivered(Reply(250, "", "ok")), late: from_reply(Reply(452, "", "too many recipients"))}) == (late,)


def test_parameters_go_only_to_a_peer_that_knows_them() -> None:
    whole = message(MailOptions(binary=True, require_tls=True), eight_bit=True)
    everything = offers("SIZE", "8BITMIME", "BINARYMIME", "CHUNKING", "DSN", "SMTPUTF8", "REQUIRETLS")
    assert mail_command(whole, everything, utf8=True) == b"MAIL FROM:<a@d.example> SIZE=15 BODY=BINARYMIME SMTPUTF8 REQUIRETLS\r\n"
    assert mail_command(whole, offers(), utf8=False) == b"MAIL FROM:<a@d.example>\r\n"


def test_an_internationalized_orcpt_reaches_a_peer_without_smtputf8_in_its_ascii_form() -> None:
    """RFC 6533 section 3: utf-8-addr-xtext."""
    assert b"ORCPT=utf-8;\\x{F6}@x.example" in rcpt_command(claim(1, orcpt="utf-8;ö@x.example"), offers("DSN"), utf8=False)


@given(st.lists(st.sampled_from([b".", b"\r\n", b"\n.", b"a", b"..", b"\r"]), max_size=12))
def test_no_end_of_data_can_be_smuggled_out_whatever_the_division_into_chunks(parts: list[bytes]) -> None:
    """Invariant: after CRLF no dot stands alone on its line, and taking the dots out gives the content back."""
    stuffer = DotStuffer()
    wire = b"\r\n" + b"".join(stuffer.feed(part) for part in parts)
    assert b"\r\n.\r\n" not in wire
    assert wire.replace(b"\r\n..", b"\r\n.") == b"\r\n" + b"".join(parts)
    assert stuffer.at_line_start == wire.endswith(b"\r\n")


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b""]), max_size=12))
def test_a_bare_cr_or_lf_is_found_whatever_the_division_into_chunks(parts: list[bytes]) -> None:
    """Invariant: the verdict is that of the whole, given a last line end (A2)."""
    ends = LineEnds()
    verdict = all(ends.feed(part) for part in [*parts, b"x\r\n"])
    whole = b"".join(parts) + b"x\r\n"
    assert verdict == (b"\r" not in whole.replace(b"\r\n", b"") and b"\n" not in whole.replace(b"\r\n", b""))
