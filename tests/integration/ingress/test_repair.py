"""A listener that repairs line ends, beside one that refuses them (policy P1)."""

import pathlib

from integration.ingress.running import HELLO, Running, bdat, envelope, run

BROKEN = b"From: a@d.example\nSubject: x\n\nbare\nlines\r.\nall over"


def test_bare_line_ends_become_crlf_where_the_listener_is_told_to_and_are_refused_elsewhere(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert (await client.message(BROKEN + b"\r\n")).startswith("554 5.6.0")
        relay = await running.connect("relay", "127.0.0.2")
        assert (await relay.message(BROKEN + b"\r\n")).startswith("250")
        await envelope(relay)
        assert (await bdat(relay, BROKEN[:40])).startswith("250")
        assert (await bdat(relay, BROKEN[40:], " LAST")).startswith("250")
        ((_, headers, body), (_, _, chunks)) = running.spool.messages
        assert headers.endswith(b"From: a@d.example\r\nSubject: x\r\n")
        assert body == b"bare\r\nlines\r\n.\r\nall over\r\n"
        assert chunks == b"bare\r\nlines\r\n.\r\nall over"

    run(tmp_path, scenario, repair_line_ends=("relay",))


def test_a1_a_smuggled_end_is_content_there_too(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        relay = await running.connect("relay", "127.0.0.2")
        evil = b"MAIL FROM:<a@d.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n"
        assert (await relay.message(HELLO + b"x\n.\n" + evil)).startswith("250")
        assert (await relay.ask("NOOP")).startswith("250")
        assert len(running.spool.messages) == 1
        assert running.spool.messages[0][2].endswith(b"x\r\n.\r\n" + evil)

    run(tmp_path, scenario, repair_line_ends=("relay",))
