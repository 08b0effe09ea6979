"""A suppressed recipient at RCPT: refused with the reason, alone, and without a question about the others."""

import pathlib

from integration.ingress.running import Running, run

CONTENT = b"From: a@d.example\r\nSubject: x\r\n\r\nbody\r\n"


def test_a_suppressed_recipient_is_refused_with_the_reason_and_the_others_get_their_mail(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        running.suppression.entries["gone@x.example"] = "The address is on the suppression list: bounce"
        client = await running.authenticated()
        assert (await client.ask("MAIL FROM:<a@d.example>")).startswith("250")
        # The first recipient of a session is a question, whatever the filter says; from then on only suppressed ones are.
        assert (await client.ask("RCPT TO:<first@x.example>")).startswith("250")
        asked = running.suppression.lookups
        assert (await client.ask("RCPT TO:<Gone@x.example>")) == "550 5.7.1 The address is on the suppression list: bounce"
        for number in range(20):
            assert (await client.ask(f"RCPT TO:<b{number}@x.example>")).startswith("250")
        assert running.suppression.lookups <= asked + 2
        assert (await client.message_data(CONTENT)).startswith("250")
        ((envelope, _, _),) = running.spool.messages
        assert [r.address for r in envelope.recipients] == ["first@x.example", *(f"b{number}@x.example" for number in range(20))]

    run(tmp_path, scenario)


def test_recipients_in_one_write_are_checked_one_by_one(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        running.suppression.entries["gone@x.example"] = "no"
        client = await running.authenticated()
        client.send(b"MAIL FROM:<a@d.example>\r\nRCPT TO:<gone@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n")
        replies = [await client.reply() for _ in range(4)]
        assert [reply[:3] for reply in replies] == ["250", "550", "250", "354"]

    run(tmp_path, scenario)
