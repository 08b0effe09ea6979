"""Pipelining (RFC 2920, RFC 3030): whatever is sent together, and however TCP cuts it, is answered as if each command had waited for its reply."""

import asyncio
import os
import pathlib
import random
import re
import time

import pytest

from integration.ingress.running import HELLO, Dialogue, Running, run

SECONDS = float(os.environ.get("POSTROOM_TEST_FUZZ_SECONDS", "4"))
WHOLE = b"BDAT %d LAST\r\n" % len(HELLO) + HELLO
TOGETHER = [
    *(b"MAIL FROM:<a@d.example>\r\n", b"MAIL FROM:<a@d.example> BODY=8BITMIME RET=HDRS\r\n", b"MAIL FROM:<a@e.example>\r\n", b"MAIL FROM:<x\r\n"),
    *(
        b"RCPT TO:<b@x.example>\r\n",
        b"RCPT TO:<c@x.example> NOTIFY=NEVER\r\n",
        b"RCPT TO:<b\r\n",
        b"RSET\r\n",
        b"NOOP x\r\n",
        b"VRFY x\r\n",
        b"XYZZY\r\n",
    ),
    *(WHOLE, b"BDAT 10\r\n" + HELLO[:10], b"BDAT %d LAST\r\n" % len(HELLO[10:]) + HELLO[10:], b"BDAT 0 LAST\r\n", b"BDAT 3\r\na\nb"),
    *(b"\r\n", b"x" * 3000 + b"\r\n"),
]
# These end a group: what comes behind them must wait for the reply.
LAST = [b"DATA\r\n", b"EHLO c\r\n", b"AUTH PLAIN AHUAcA==\r\n", b"AUTH PLAIN !\r\n", b"STARTTLS\r\n"]
Script = list[list[bytes]]


def script(chance: random.Random) -> Script:
    """Groups of commands, half of them whole transactions; fewer commands than the errors that a session is allowed."""
    groups = []
    for _ in range(chance.randint(1, 3)):
        if chance.random() < 0.5:
            content = chance.choice([b"DATA\r\n", WHOLE])
            groups.append([b"MAIL FROM:<a@d.example>\r\n", b"RCPT TO:<b@x.example>\r\n", chance.choice(TOGETHER[4:7]), content])
            continue
        group = [chance.choice(TOGETHER) for _ in range(chance.randint(1, 5))]
        groups.append([*group, chance.choice(LAST)] if chance.random() < 0.7 else group)
    return groups


async def play(running: Running, groups: Script, where: str, cuts: random.Random | None) -> list[str]:
    """The replies to a script; each command alone without `cuts`, else each group in segments that `cuts` chooses."""
    client = await running.connect(where, "127.0.0.2")
    replies: list[str] = []
    for group in groups:
        if cuts is None:
            for command in group:
                client.send(command)
                replies.append(await client.reply())
        else:
            await in_segments(client, b"".join(group), cuts)
            replies += [await client.reply() for _ in group]
        if replies[-1].startswith("354"):
            client.send(HELLO + b".\r\n")
            replies.append(await client.reply())
        elif replies[-1].startswith("220"):
            await client.secure()
    client.close()
    return [re.sub(r"queued as \w+|FUTURERELEASE .*", "", reply) for reply in replies]


async def in_segments(client: Dialogue, data: bytes, cuts: random.Random) -> None:
    while data:
        cut = cuts.choice([len(data), cuts.randint(1, len(data))])
        client.send(data[:cut])
        await client.drain()
        await asyncio.sleep(0)
        data = data[cut:]


@pytest.mark.timeout(0)
def test_replies_do_not_depend_on_what_is_sent_together(tmp_path: pathlib.Path) -> None:
    seed = int(os.environ.get("POSTROOM_TEST_FUZZ_SEED", str(random.randrange(2**32))))
    chance = random.Random(seed)

    async def scenario(running: Running) -> None:
        accepted, ends = 0, time.monotonic() + SECONDS
        while time.monotonic() < ends or not accepted:
            groups, where = script(chance), chance.choice(["relay", "tls"])
            alone = await play(running, groups, where, None)
            before = len(running.spool.messages)
            together = await play(running, groups, where, chance)
            assert together == alone, (seed, groups)
            accepted += sum("Ok:" in reply for reply in alone)
            assert len(running.spool.messages) - before == sum("Ok:" in reply for reply in together), (seed, groups)

    run(tmp_path, scenario, error_seconds=0.0)
