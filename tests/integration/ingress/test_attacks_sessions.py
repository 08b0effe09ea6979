"""Clients that mean harm, and clients that are only clumsy, over real sockets. Tests are named after the rows of the attack and fault catalogue."""

import asyncio
import pathlib

import pytest

from postroom.v1 import signer_pb2, spool_pb2

from integration.ingress.running import HELLO, Dialogue, Running, certificate, domain, envelope, run


def test_an_authenticated_message_is_stamped_signed_and_unchanged_below(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect()
        await client.start_tls()
        await client.ask("EHLO client.test")
        assert (await client.login()).startswith("235 2.7.0")
        content = b"From: a@d.example\r\nBcc: hidden@x.example\r\nSubject:  odd \r\n\r\n.dot\r\nend\r\n"
        assert (await client.message(content.replace(b"\n.dot", b"\n..dot"))).startswith("250 2.0.0 Ok: queued as ")
        ((envelope, headers, body),) = running.spool.messages
        assert (envelope.reverse_path, envelope.tenant, envelope.pool, envelope.credential) == ("a@d.example", "t", "default/main", "u")
        assert headers.startswith(b"DKIM-Signature: fake\r\nReceived: from client.test ([127.0.0.1])\r\n\tby mta.d.example with ESMTPSA tls ")
        assert b"Bcc" not in headers
        assert b"\r\nDate: " in headers
        assert b"\r\nMessage-ID: <" in headers
        assert headers.endswith(b"From: a@d.example\r\nSubject:  odd \r\n")
        assert body == b".dot\r\nend\r\n"

    run(tmp_path, scenario)


def test_relay_ports_change_nothing_but_the_trace(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay", "127.0.0.2")
        assert (await client.message(b"From: a@d.example\r\nBcc: b@x.example\r\n\r\nx\r\n")).startswith("250")
        ((_, headers, _),) = running.spool.messages
        assert headers.endswith(b"From: a@d.example\r\nBcc: b@x.example\r\n")
        assert b"Message-ID" not in headers

    run(tmp_path, scenario)


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n"])
def test_a1_a_smuggled_end_never_starts_a_second_message(tmp_path: pathlib.Path, end: bytes) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        evil = b"MAIL FROM:<a@d.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\nFrom: a@d.example\r\n\r\nevil\r\n"
        assert (await client.message(HELLO + end + evil)).startswith("554 5.6.0")
        assert running.spool.messages == []
        assert (await client.ask("NOOP")).startswith("250")

    run(tmp_path, scenario)


def test_a3_commands_behind_starttls_are_never_run(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect()
        client.send(b"STARTTLS\r\nNOOP\r\nNOOP\r\n")
        assert (await client.reply()).startswith("554 5.5.0")
        assert await client.reply() == ""

    run(tmp_path, scenario)


def test_a4_a_body_sent_before_354_is_never_taken_for_commands(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay")
        client.send(b"MAIL FROM:<a@d.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\nRSET\r\nMAIL FROM:<a@d.example>\r\n.\r\n")
        replies = [await client.reply() for _ in range(3)]
        assert replies[1].startswith("550 5.7.1")
        assert replies[2].startswith("503")
        assert running.spool.messages == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "recipient",
    [
        "<@a.example:b@x.example>",
        "<b%x.example@d.example>",
        "<x.example!b@d.example>",
        '<"b@x.example"@d.example>',
        "<b@[127.0.0.1]>",
        "<b@x.example>",
    ],
)
def test_a5_strangers_relay_nowhere(tmp_path: pathlib.Path, recipient: str) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay")
        assert (await client.ask("MAIL FROM:<a@d.example>")).startswith("250")
        assert (await client.ask(f"RCPT TO:{recipient}"))[0] == "5"
        assert (await client.ask("DATA"))[0] == "5"

    run(tmp_path, scenario)


def test_a5_a_user_cannot_send_as_another_domain_in_the_envelope_or_in_from(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert (await client.message(HELLO, sender="a@other.example")).startswith("550 5.7.1")
        for sender in (b"a@other.example", b"a@d.example, b@other.example"):
            await client.ask("RSET")
            assert (await client.message(b"From: " + sender + b"\r\n\r\nx\r\n")).startswith("550 5.7.1"), sender
        for sender in (b"<a@d.example> b@other.example", b"=?utf-8?q?a=40d.example?= b@other.example", b"a@d.example\0"):
            await client.ask("RSET")
            assert (await client.message(b"From: " + sender + b"\r\n\r\nx\r\n"))[0] == "5", sender
        assert running.spool.messages == []

    run(tmp_path, scenario)


def test_a6_encoded_words_and_comments_are_no_addresses(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        for path in ("=?utf-8?q?a=0D=0A?=@d.example", "a(c)@d.example", "a b@d.example", "a@d.example\x7f"):
            assert (await client.ask(f"MAIL FROM:<{path}>"))[0] == "5"

    run(tmp_path, scenario)


def test_a8_auth_needs_tls_and_guessing_ends_the_session(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect()
        assert "AUTH" not in await client.ask("EHLO client.test")
        assert (await client.login()).startswith("538 5.7.11")
        client = await running.connect("tls")
        wrong = [await client.login(password="x"), await client.login(username="nobody"), await client.login(password="y")]
        assert [reply[:9] for reply in wrong] == ["535 5.7.8", "535 5.7.8", "421 4.7.0"]
        assert wrong[0] == wrong[1]

    run(tmp_path, scenario)


def test_a9_what_is_too_large_is_refused_and_the_session_goes_on(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert (await client.ask("NOOP " + "x" * 5000)).startswith("500 5.5.2")
        assert (await client.ask("MAIL FROM:<a@d.example> SIZE=99999999")).startswith("552 5.3.4")
        for content, code in (
            (b"x" * 2000 + b"\r\n", "554 5.6.0"),
            (b"From: a@d.example\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", "554 5.6.0"),
            (HELLO + (b"x" * 78 + b"\r\n") * 6000, "552 5.3.4"),
            (b"From: a@d.example\r\n" + b"Received: x\r\n" * 60 + b"\r\n", "554 5.4.6"),
        ):
            assert (await client.message(content)).startswith(code)
        assert running.spool.messages == []
        assert (await client.message(HELLO)).startswith("250")

    run(tmp_path, scenario, max_message_bytes=400_000)


def test_a12_malformed_headers_are_refused(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        for header in (
            b"Subject: x\r\n",
            b"From: a@d.example\r\nFrom: a@d.example\r\n",
            b"From : a@d.example\r\n",
            b" folded\r\nFrom: a@d.example\r\n",
            b"nonsense\r\n",
        ):
            assert (await client.message(header + b"\r\nx\r\n")).startswith("554 5.6.0"), header
        assert running.spool.messages == []

    run(tmp_path, scenario)


def test_f5_f6_a_spool_or_signer_that_is_away_is_451_and_comes_back(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        running.spool.refuse = spool_pb2.Reply(code=452, enhanced="4.3.1", text="The queue has no room now")
        assert await client.message(HELLO) == "452 4.3.1 The queue has no room now"
        running.spool.refuse = None
        running.signer.refusal = signer_pb2.Refusal(reason=signer_pb2.Refusal.NO_KEY, text="The DKIM key of d.example is not published yet")
        assert (await client.message(HELLO)).startswith("451 4.7.0 The DKIM key of d.example")
        running.signer.refusal = None
        assert (await client.message(HELLO)).startswith("250")
        assert len(running.spool.messages) == 1

    run(tmp_path, scenario)


def test_p1_a_client_that_leaves_after_the_dot_does_not_stop_the_commit(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        running.spool.hold = asyncio.Event()
        client = await running.authenticated()
        for command in ("MAIL FROM:<a@d.example>", "RCPT TO:<b@x.example>", "DATA"):
            await client.ask(command)
        client.send(HELLO + b".\r\n")
        await running.spool.ended.wait()
        client.abort()
        running.spool.hold.set()
        async with asyncio.timeout(10):
            while not running.spool.messages:
                await asyncio.sleep(0)

    run(tmp_path, scenario)


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_p2_a_message_that_is_on_its_way_when_the_sessions_time_is_up_is_answered(tmp_path: pathlib.Path, verb: str) -> None:
    """Accepted and then told 421, a client would send it again."""

    async def scenario(running: Running) -> None:
        running.spool.hold = asyncio.Event()
        client, idle = await running.connect("relay", "127.0.0.2"), await running.connect("relay", "127.0.0.2")
        await envelope(client)
        if verb == "DATA":
            assert (await client.ask("DATA")).startswith("354")
            client.send(HELLO + b".\r\n")
        else:
            client.send(b"BDAT %d LAST\r\n" % len(HELLO) + HELLO)
        await running.spool.ended.wait()
        assert (await idle.reply()).startswith("421 4.4.2"), "this session began later, so the time of both is up"
        running.spool.hold.set()
        assert (await client.reply()).startswith("250")
        assert (await client.reply()).startswith("421 4.4.2")

    run(tmp_path, scenario, session_seconds=1.0)


def test_a_large_message_streams_in_small_chunks_and_a_late_violation_leaves_nothing(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        body = (b"y" * 78 + b"\r\n") * 20_000
        assert (await client.message(b"From: a@d.example\r\n\r\n" + body)).startswith("250")
        assert running.spool.messages[0][2] == body
        assert running.spool.largest <= 65536
        assert (await client.message(b"From: a@d.example\r\n\r\n" + body + b"bare\nline\r\n")).startswith("554 5.6.0")
        async with asyncio.timeout(10):
            while not running.spool.abandoned:
                await asyncio.sleep(0)
        assert len(running.spool.messages) == 1

    run(tmp_path, scenario)


def test_f17_a_stop_finishes_the_transaction_and_tells_the_rest_421(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        idle, busy = await running.connect(), await running.authenticated()
        for command in ("MAIL FROM:<a@d.example>", "RCPT TO:<b@x.example>", "DATA"):
            await busy.ask(command)
        running.stopping.request()
        assert (await idle.reply()).startswith("421 4.3.2")
        busy.send(HELLO + b".\r\n")
        assert (await busy.reply()).startswith("250")
        assert (await busy.reply()).startswith("421 4.3.2")

    run(tmp_path, scenario)


def test_connections_over_the_limit_hear_421_at_once(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        kept = [await running.connect() for _ in range(2)]
        third = await running.raw()
        assert (await third.reply()).startswith("421 4.3.2")
        kept[0].close()

    run(tmp_path, scenario, max_connections=2)


def test_a_new_certificate_and_a_new_domain_are_in_force_without_dropping_a_session(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        running.publish(domain(active=False), certificate(), version="2")
        async with asyncio.timeout(5):
            while not (await (await _fresh(running)).ask("MAIL FROM:<a@d.example>")).startswith("450 4.7.1"):
                await asyncio.sleep(0.05)
        assert (await client.ask("NOOP")).startswith("250")

    run(tmp_path, scenario)


async def _fresh(running: Running) -> Dialogue:
    return await running.authenticated()
