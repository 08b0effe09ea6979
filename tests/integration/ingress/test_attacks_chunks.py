"""A11: chunks that lie about their size, come out of order, or never end; over real sockets."""

import pathlib

import pytest

from integration.ingress.running import HELLO, Running, bdat, envelope, run


def test_a11_a_refused_chunk_is_read_to_its_end_and_the_rest_is_refused_until_rset(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        assert (await bdat(client, b"QUIT\r\nQUIT\r\n")).startswith("503 5.5.1"), "no transaction"
        await envelope(client)
        assert (await bdat(client, b"From: a@d.example\r\n\r\nbare\nQUIT\r\n")).startswith("554 5.6.0")
        assert (await bdat(client, b"QUIT\r\n", " LAST")).startswith("503 5.5.1")
        assert (await client.ask("RSET")).startswith("250")
        assert (await client.message(HELLO)).startswith("250")
        await envelope(client)
        assert (await bdat(client, HELLO[:10])).startswith("250")
        for command in ("DATA", "RCPT TO:<c@x.example>", "MAIL FROM:<a@d.example>"):
            assert (await client.ask(command)).startswith("503 5.5.1"), command
        assert (await bdat(client, HELLO[10:], " LAST")).startswith("250")
        assert (await bdat(client, b"x", " LAST")).startswith("503 5.5.1"), "behind the last"
        assert len(running.spool.messages) == 2

    run(tmp_path, scenario)


@pytest.mark.parametrize("argument", ["", "x", "-1", "+1", "0x10", "18446744073709551616", "99999999999999", "1 FIRST", "1  LAST", "١"])
def test_a11_a_size_that_cannot_be_kept_to_ends_the_session(tmp_path: pathlib.Path, argument: str) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        await envelope(client)
        assert (await client.ask(f"BDAT {argument}"))[0] == "5"
        assert await client.reply() == ""
        assert running.spool.messages == []

    run(tmp_path, scenario)


def test_a11_endless_empty_chunks_end_the_session_and_small_ones_are_counted(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        await envelope(client)
        client.send(b"BDAT 0\r\n" * 30)
        replies = []
        while reply := await client.reply():
            replies.append(reply)
        assert len(replies) <= 21
        assert replies[-1].startswith("421 4.7.0")

    run(tmp_path, scenario, error_seconds=0.0)


def test_a11_a_message_over_the_limit_by_chunks_is_552_and_the_session_lives(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        await envelope(client)
        assert (await bdat(client, HELLO + (b"x" * 78 + b"\r\n") * 900)).startswith("552 5.3.4")
        await client.ask("RSET")
        await envelope(client)
        assert (await bdat(client, HELLO + (b"x" * 78 + b"\r\n") * 500)).startswith("250")
        assert (await bdat(client, (b"x" * 78 + b"\r\n") * 500, " LAST")).startswith("552 5.3.4")
        assert (await client.message(HELLO)).startswith("250")

    run(tmp_path, scenario, max_message_bytes=65536)


def test_a11_a_connection_cut_inside_a_chunk_leaves_nothing(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        await envelope(client)
        client.send(b"BDAT 500000 LAST\r\n" + HELLO + (b"x" * 78 + b"\r\n") * 3000)
        await running.spool.began.wait()
        client.abort()
        await running.spool.left.wait()
        assert running.spool.messages == []
        assert (await (await running.authenticated()).message(HELLO)).startswith("250")

    run(tmp_path, scenario)
