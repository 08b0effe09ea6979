"""The extensions beyond plain SMTP, over real sockets: CHUNKING, BINARYMIME, SMTPUTF8, REQUIRETLS, FUTURERELEASE, DELIVERBY, MT-PRIORITY, LIMITS."""

import pathlib
from typing import Any

from postroom_core.documents import Credential

from integration.ingress.running import HELLO, VERIFIER, Running, bdat, domain, envelope, run


def test_chunks_arrive_as_they_were_sent_dots_and_missing_last_crlf_included(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        await envelope(client)
        assert await bdat(client, b"From: a@d.example\r") == "250 2.0.0 18 octets received"
        assert (await bdat(client, b"\n\r\n.\r\n..a\r\nno end")).startswith("250")
        assert (await bdat(client, b"", " LAST")).startswith("250 2.0.0 Ok: queued as ")
        ((_, headers, body),) = running.spool.messages
        assert headers.endswith(b"From: a@d.example\r\n")
        assert body == b".\r\n..a\r\nno end"
        assert (await client.message(HELLO)).startswith("250")

    run(tmp_path, scenario)


def test_pipelined_chunks_of_a_large_message_stream(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        content = b"From: a@d.example\r\n\r\n" + (b"y" * 78 + b"\r\n") * 20_000
        client.send(b"MAIL FROM:<a@d.example>\r\nRCPT TO:<b@x.example>\r\n")
        parts = [content[start : start + 300_001] for start in range(0, len(content), 300_001)]
        for index, part in enumerate(parts):
            client.send(f"BDAT {len(part)}{' LAST' if index == len(parts) - 1 else ''}\r\n".encode() + part)
        replies = [await client.reply() for _ in range(2 + len(parts))]
        assert [reply[:3] for reply in replies] == ["250"] * len(replies)
        assert running.spool.messages[0][2] == content.partition(b"\r\n\r\n")[2]
        assert running.spool.largest <= 65536

    run(tmp_path, scenario)


def test_binary_content_comes_by_bdat_alone_and_its_option_travels(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        await envelope(client, " BODY=BINARYMIME")
        assert (await client.ask("DATA")).startswith("503 5.5.1")
        content = b"\0\r\n\n\r.\r\n" + b"\xff" * 5000
        assert (await bdat(client, b"From: a@d.example\r\n\r\n" + content, " LAST")).startswith("250")
        ((made, _, body),) = running.spool.messages
        assert body == content
        assert made.options.binary

    run(tmp_path, scenario)


def test_smtputf8_is_demanded_of_the_next_hop_only_where_it_is_needed(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        await envelope(client, " SMTPUTF8", "почта@пример.example")
        assert (await client.message_data(b"From: <a@d.example>\r\n\r\nx\r\n")).startswith("250")
        await envelope(client, " SMTPUTF8", "b@пример.example")
        assert (await client.message_data("From: <a@d.example>\r\n\r\nü\r\n".encode())).startswith("250")
        await envelope(client, " SMTPUTF8")
        assert (await client.message_data("From: <a@d.example>\r\nSubject: ü\r\n\r\nx\r\n".encode())).startswith("250")
        await envelope(client)
        assert (await client.message_data("From: <a@d.example>\r\nSubject: ü\r\n\r\nx\r\n".encode())).startswith("250")
        made = [message[0] for message in running.spool.messages]
        assert [m.options.smtputf8 for m in made] == [True, False, True, False]
        assert made[0].recipients[0].address == "почта@xn--e1afmkfd.example"
        first = running.spool.messages[0][1]
        assert b"\r\n\tby mta.d.example with UTF8SMTPSA tls " in first
        assert " for <почта@xn--e1afmkfd.example>;".encode() in first

    run(tmp_path, scenario)


def test_a_utf8_from_is_held_to_the_allowed_senders(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        for sender, code in (("ä@d.example", "250"), ("ä@ö.example", "550"), ("a@ö.example", "550")):
            await client.ask("RSET")
            await envelope(client, " SMTPUTF8")
            assert (await client.message_data(f"From: Ä <{sender}>\r\n\r\nx\r\n".encode())).startswith(code), sender
        await envelope(client)
        assert (await client.message_data("From: ä@d.example\r\n\r\nx\r\n".encode())).startswith("554 5.6.0")

    run(tmp_path, scenario)


def test_requiretls_is_offered_over_tls_alone_and_the_header_passes_policies(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        clear = await running.connect("relay", "127.0.0.2")
        assert "REQUIRETLS" not in await clear.ask("EHLO client.test")
        assert (await clear.ask("MAIL FROM:<a@d.example> REQUIRETLS")).startswith("555 5.5.4")
        client = await running.authenticated()
        assert "REQUIRETLS" in await client.ask("EHLO client.test")
        content = b"From: a@d.example\r\nTLS-Required: No\r\n\r\nx\r\n"
        await envelope(client, " REQUIRETLS")
        assert (await client.message_data(content)).startswith("250")
        await envelope(client)
        assert (await client.message_data(content)).startswith("250")
        found = [(made.options.require_tls, made.options.tls_optional) for made, _, _ in running.spool.messages]
        assert found == [(True, False), (False, True)]

    run(tmp_path, scenario)


def test_hold_and_deliver_by_travel_and_holding_is_for_the_authenticated(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert "FUTURERELEASE 3600 20" in await client.ask("EHLO client.test")
        await envelope(client, " HOLDFOR=600 BY=7200;R")
        assert (await client.message_data(HELLO)).startswith("250")
        ((made, _, _),) = running.spool.messages
        assert made.options.hold_until_ms - made.received_at_ms in range(599_000, 600_001)
        assert made.options.deliver_by_ms - made.received_at_ms in range(7_199_000, 7_200_001)
        assert made.options.deliver_by_return
        assert (await client.ask("MAIL FROM:<a@d.example> HOLDFOR=3601")).startswith("554 5.5.4")
        relay = await running.connect("relay", "127.0.0.2")
        await relay.start_tls()
        await relay.ask("EHLO client.test")
        assert (await relay.ask("MAIL FROM:<a@d.example> HOLDFOR=60")).startswith("550 5.7.1")
        assert (await relay.ask("MAIL FROM:<a@d.example> BY=60;N")).startswith("250")

    run(tmp_path, scenario, max_hold_seconds=3600)


def test_a_priority_is_for_credentials_that_may_ask_for_it(tmp_path: pathlib.Path) -> None:
    values: dict[str, Any] = {"verifiers": (VERIFIER,), "allowed_senders": ("*@d.example",)}
    credentials = (Credential(name="u", username="u", **values), Credential(name="v", username="v", priorities=(-9, 4), **values))

    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert (await client.ask("MAIL FROM:<a@d.example> MT-PRIORITY=1")).startswith("550 5.7.1")
        assert (await client.ask("MAIL FROM:<a@d.example> MT-PRIORITY=0")).startswith("250")
        other = await running.connect("tls")
        assert (await other.login("v")).startswith("235")
        assert (await other.ask("MAIL FROM:<a@d.example> MT-PRIORITY=5")).startswith("550 5.7.1")
        await envelope(other, " MT-PRIORITY=4")
        assert (await other.message_data(HELLO)).startswith("250")
        assert running.spool.messages[0][0].options.priority == 4

    run(tmp_path, scenario, domain(credentials=credentials))


def test_the_limit_of_recipients_is_announced_and_kept(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert "LIMITS RCPTMAX=100" in await client.ask("EHLO client.test")
        assert (await client.ask("MAIL FROM:<a@d.example>")).startswith("250")
        client.send(b"".join(b"RCPT TO:<b%d@x.example>\r\n" % number for number in range(101)))
        replies = [await client.reply() for _ in range(101)]
        assert {reply[:9] for reply in replies[:100]} == {"250 2.1.5"}
        assert replies[100].startswith("452 4.5.3")

    run(tmp_path, scenario, max_recipients=100)
