"""Random sessions against the real server: it answers or closes, never breaks, and takes nothing that it should not. `make fuzz` does it for hours.

POSTROOM_TEST_FUZZ_SECONDS sets how long; the seed is printed, so that a failure can be repeated with POSTROOM_TEST_FUZZ_SEED.
"""

import asyncio
import base64
import contextlib
import os
import pathlib
import random
import time

import pytest

from integration.ingress.running import HELLO, Running, run

SECONDS = float(os.environ.get("POSTROOM_TEST_FUZZ_SECONDS", "4"))
GOOD = [
    *(
        b"EHLO c\r\n",
        b"HELO c\r\n",
        b"MAIL FROM:<a@d.example>\r\n",
        b"MAIL FROM:<> BODY=BINARYMIME\r\n",
        b"RCPT TO:<b@x.example>\r\n",
        b"DATA\r\n",
        b"RSET\r\n",
    ),
    *(
        b"NOOP\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN " + base64.b64encode(b"\0u\0p") + b"\r\n",
        b"AUTH LOGIN\r\n",
        b"*\r\n",
        b"VRFY x\r\n",
        b"BDAT %d LAST\r\n" % len(HELLO) + HELLO,
    ),
    *(
        b"BDAT 10\r\n" + HELLO[:10],
        b"BDAT %d LAST\r\n" % len(HELLO[10:]) + HELLO[10:],
        b"BDAT 0 LAST\r\n",
        HELLO + b".\r\n",
        b".\r\n",
        b"\r\n",
        b"MAIL FROM:<a@d.example> SMTPUTF8\r\n",
    ),
    *(
        "RCPT TO:<ü@x.example>\r\n".encode(),
        b"MAIL FROM:<a@d.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n",
        b"x" * 3000 + b"\r\n",
        b"From: a@e.example\r\n\r\n.\r\n",
    ),
    *(b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=u,r=abc") + b"\r\n", b"\r\n.\r\n", b"\n.\n", b"QUIT\r\n"),
]


def script(chance: random.Random) -> bytes:
    """Commands in mostly good order, some with octets changed, lost or doubled."""
    parts = []
    for _ in range(chance.randint(1, 12)):
        part = bytearray(chance.choice(GOOD))
        while chance.random() < 0.15 and part:
            place = chance.randrange(len(part))
            match chance.randrange(3):
                case 0:
                    part[place] = chance.choice(b"\r\n\0 .<>@\xff=;0A")
                case 1:
                    del part[place]
                case 2:
                    part[place:place] = part[place : place + chance.randint(1, 8)]
        parts.append(bytes(part))
    return b"".join(parts)


async def session(running: Running, chance: random.Random) -> None:
    where, source = chance.choice([("relay", "127.0.0.2"), ("relay", "127.0.0.1"), ("submission", "127.0.0.1"), ("tls", "127.0.0.1")])
    client = await running.raw(where, source)
    await client.reply()
    data = script(chance)
    with contextlib.suppress(ConnectionError, TimeoutError):
        while data:
            cut = chance.choice([len(data), chance.randint(1, len(data))])
            client.send(data[:cut])
            data = data[cut:]
            if chance.random() < 0.5:
                async with asyncio.timeout(0.02):
                    while await client.reply():
                        pass
    client.abort() if chance.random() < 0.3 else client.close()


def check(running: Running) -> None:
    for envelope, headers, body in running.spool.messages:
        assert envelope.reverse_path in ("", "a@d.example")
        assert b"\r\nFrom: a@d.example" in headers
        if not envelope.options.binary:
            assert b"\n" not in body.replace(b"\r\n", b"")
            assert b"\0" not in body
    running.spool.messages.clear()


@pytest.mark.timeout(0)
def test_random_sessions_break_nothing(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("POSTROOM_TEST_FUZZ_SEED", str(random.randrange(2**32))))
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def scenario(running: Running) -> None:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            await asyncio.gather(*(session(running, chance) for _ in range(8)))
            check(running)
            said = "".join(capfd.readouterr())
            assert "unforeseen" not in said, f"seed {seed}: {said}"
        assert (await (await running.authenticated()).message(HELLO)).startswith("250")

    run(tmp_path, scenario, error_seconds=0.0, idle_seconds=2.0)
