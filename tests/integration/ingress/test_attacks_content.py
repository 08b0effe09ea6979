"""A1, A2, A7, A12, A13, A14, A21: what is in commands and messages that means harm."""

import pathlib

import aiohttp
import pytest

from postroom.v1 import signer_pb2

from integration.ingress.running import HELLO, Running, free_ports, run

SMUGGLED = [
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n", b"\n\n.\n\n", b"\r\n.\r\r\n"),
    *(b"\r\n\x0b.\x0c\r\n\0", b"\r\n.\0\r\n", b"\n\r.\n\r", b"\r\n\r.\r\n"),
]
HARMLESS = ["\u0085.\u0085", "\u2028.\u2028", "\r\n..\r\n", "\r\n . \r\n", "\r\n.a\r\n"]
EVIL = b"MAIL FROM:<a@d.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\nFrom: a@d.example\r\n\r\nevil\r\n"


@pytest.mark.parametrize("end", SMUGGLED)
def test_a1_a2_no_smuggled_end_comes_in_by_data_or_by_bdat_and_none_can_leave(tmp_path: pathlib.Path, end: bytes) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert (await client.message(HELLO + end + EVIL)).startswith("554 5.6.0")
        await client.ask("MAIL FROM:<a@d.example>")
        await client.ask("RCPT TO:<b@x.example>")
        content = HELLO + end + EVIL
        client.send(f"BDAT {len(content)} LAST\r\n".encode() + content)
        assert (await client.reply()).startswith("554 5.6.0")
        assert running.spool.messages == []
        assert (await client.ask("NOOP")).startswith("250")

    run(tmp_path, scenario)


def test_a1_what_only_looks_like_an_end_is_content(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        for text in HARMLESS:
            assert (await client.message(HELLO + text.encode() + b"\r\n")).startswith("250")
        bodies = [body for _, _, body in running.spool.messages]
        assert len(bodies) == len(HARMLESS)
        assert bodies[2] == b"hello\r\n\r\n.\r\n\r\n"
        assert bodies[4] == b"hello\r\n\r\na\r\n\r\n", "one dot is removed from every line that begins with one (RFC 5321 section 4.5.2)"

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "command",
    [
        b"MAIL FROM:<a@d.example>\nRCPT TO:<x@x.example>",
        b"MAIL FROM:<a@d.example\r>",
        b"MAIL FROM:<a\0@d.example>",
        b"EHLO x\nMAIL FROM:<a@d.example>",
        b"MAIL FROM:<a@d.example> ENVID=a\rb",
        b"NOOP\0",
    ],
)
def test_a7_a_command_with_a_line_inside_ends_the_session(tmp_path: pathlib.Path, command: bytes) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        client.send(command + b"\r\nNOOP\r\n")
        assert (await client.reply()).startswith("500 5.5.2")
        assert await client.reply() == ""

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "argument",
    [
        *("FROM:<a@d.example> ENVID=a+0D+0AX", "FROM:<a@d.example> RET=HDRS ENVID=a\x0bX"),
        *('FROM:<"a\\\nb"@d.example>', 'FROM:<"a" <b>"@d.example>', "FROM:<a@d.example>> SIZE=1"),
    ],
)
def test_a7_what_could_become_a_line_elsewhere_stays_encoded_or_is_refused(tmp_path: pathlib.Path, argument: str) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        reply = await client.ask(f"MAIL {argument}")
        if reply.startswith("250"):
            await client.ask("RCPT TO:<b@x.example>")
            assert (await client.message_data(HELLO)).startswith("250")
            assert running.spool.messages[0][0].envid == "a+0D+0AX", "xtext, octet for octet"
        else:
            assert reply[0] == "5"

    run(tmp_path, scenario)


def test_a7_a_name_in_ehlo_cannot_write_into_received(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert (await client.ask("EHLO x;by;evil<@>")).startswith("250")
        assert (await client.message(HELLO)).startswith("250")
        assert b"from x?by?evil??? ([127.0.0.1])" in running.spool.messages[0][1]

    run(tmp_path, scenario)


REFUSED = [
    *(b"\xef\xbb\xbfFrom: a@d.example\r\n", b"From : a@d.example\r\n", b" folded\r\nFrom: a@d.example\r\n", b"From: a@d.example\r\n:novalue\r\n"),
    *(
        b"From: a@d.example\r\nno colon\r\n",
        b"From: a@d.example\r\nX\xff: y\r\n",
        b"From: a@d.example\r\nX: a\0b\r\n",
        b"From: a@d.example\r\nX: \x0b\r\n",
    ),
    *(b"From:\r\n", b"From: \r\n \r\n", b"From: a@d.example\r\n \r\n", b"From: \xed\xa0\x80@d.example\r\n", b"To: a@d.example\r\n"),
]
TAKEN = [b"From: a@d.example\r\nSubject: \xe4\r\n", b'From: "\xc3\xa4" <a@d.example>\r\n', b"From: a@d.example\r\nSubject: \xed\xa0\x80\r\n"]


def test_a12_malformed_headers_are_refused_and_odd_ones_pass_unchanged(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        for header in REFUSED:
            assert (await client.message(header + b"\r\nx\r\n")).startswith("554 5.6.0"), header
        for header in TAKEN:
            assert (await client.message(header + b"\r\nx\r\n")).startswith("250"), header
        assert [headers.endswith(header) for header, (_, headers, _) in zip(TAKEN, running.spool.messages, strict=True)] == [True] * len(TAKEN)

    run(tmp_path, scenario)


@pytest.mark.parametrize("name", ["From", "Sender", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"])
def test_a13_a_field_that_may_be_there_once_is_never_signed_twice(tmp_path: pathlib.Path, name: str) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        double = f"{name}: a@d.example\r\n{name.lower()}: a@d.example\r\n".encode()
        header = double if name == "From" else b"From: a@d.example\r\n" + double
        assert (await client.message(header + b"\r\nx\r\n")).startswith("554 5.6.0")
        assert running.spool.messages == []

    run(tmp_path, scenario)


def test_a13_a_domain_of_another_tenant_is_not_signed_and_not_sent(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        running.signer.refusal = signer_pb2.Refusal(reason=signer_pb2.Refusal.NOT_OWNER, text="The domain belongs to somebody else")
        assert (await client.message(HELLO)).startswith("550 5.7.1")
        assert running.spool.messages == []

    run(tmp_path, scenario)


def test_a14_fields_that_claim_to_be_ours_do_not_pass(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        theirs = b"Received: from x by y; Tue, 24 Nov 2026 00:00:00 +0000\r\nDKIM-Signature: v=1; d=other.example\r\n"
        theirs += b"Authentication-Results: other.example; spf=pass\r\n"
        ours = b"Return-Path: <x@y>\r\nBcc: c@x.example\r\nAuthentication-Results: mta.d.example; dkim=pass\r\n"
        ours += b"authentication-results:  MTA.D.EXAMPLE 1; x=y\r\n"
        assert (await client.message(theirs + ours + HELLO)).startswith("250")
        headers = running.spool.messages[0][1]
        assert headers.endswith(theirs + b"From: a@d.example\r\n"), "what others have written stays, in its order"
        assert headers.startswith(b"DKIM-Signature: fake\r\nReceived: from client.test ([127.0.0.1])\r\n"), "our trace is on top"
        relay = await running.connect("relay", "127.0.0.2")
        assert (await relay.message(theirs + ours + HELLO)).startswith("250")
        assert running.spool.messages[1][1].endswith(theirs + b"Return-Path: <x@y>\r\nBcc: c@x.example\r\nFrom: a@d.example\r\n")

    run(tmp_path, scenario)


def test_a21_metrics_and_logs_tell_no_address_and_no_password(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("tls")
        assert (await client.login(password="a-wrong-password")).startswith("535")
        assert (await client.login()).startswith("235")
        assert (await client.message(HELLO, recipient="secret.person@x.example")).startswith("250")
        async with aiohttp.ClientSession() as session, session.get(f"http://{running.settings.http}/metrics") as response:
            metrics = await response.text()
        assert "postroom_ingress_messages_total" in metrics
        assert "example" not in metrics
        said = "".join(capfd.readouterr())
        assert "message answered" in said
        for secret in ("secret.person", "a-wrong-password", "a@d.example"):
            assert secret not in said

    run(tmp_path, scenario, http=f"127.0.0.1:{free_ports(1)[0]}", error_seconds=0.0)
