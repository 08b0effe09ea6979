"""A load generator that measures: SMTP sessions over loopback, kept open or new for each message, in clear or with STARTTLS and AUTH.

Closed loop without `rate`: every session sends as fast as it is answered. With `rate` the messages have their times beforehand (open loop) and a
latency counts from the time that a message was due, so that a server that stops answering cannot hide it. A refused message is an error, not a
retry. Loopback only; bounded by the number of messages and by RUN_SECONDS.
"""

import asyncio
import base64
import itertools
import ssl
import statistics
import time
from dataclasses import dataclass, field

RUN_SECONDS = 300.0


@dataclass(frozen=True)
class Plan:
    """What to offer. `login` is (user name, password): with it every session uses STARTTLS and AUTH PLAIN. `rate` in messages a second."""

    port: int
    messages: int
    octets: int
    sessions: int = 20
    keep: bool = True
    login: tuple[str, str] | None = None
    rate: float | None = None
    sender: str = "a@d.example"
    recipient: str = "b@x.example"


@dataclass
class Load:
    """What came of it; latencies in seconds, from the first octet of a message's dialogue (or its due time) to the reply to the final dot."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """In seconds; 0 without messages."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1] if len(self.latencies) > 1 else 0.0


def content(plan: Plan, number: int) -> bytes:
    """A message of about `octets`, lines of 62, a subject of its own."""
    head = f"From: <{plan.sender}>\r\nTo: <{plan.recipient}>\r\nDate: Mon, 2 Mar 2026 10:00:00 +0000\r\nMessage-ID: <{number}@load.test>\r\n"
    head += f"Subject: load {number}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    line = "Of arms and the man they sing, and of the mail that was sent\r\n"
    body = line * max(1, (plan.octets - len(head)) // len(line))
    return (head + body + ".\r\n").encode("ascii")


class _Session:
    """One SMTP session."""

    def __init__(self, plan: Plan, context: ssl.SSLContext | None) -> None:
        self._plan = plan
        self._context = context
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._plan.port)
        await self._reply(220)
        await self._ask(b"EHLO load.test\r\n", 250)
        if self._plan.login is None:
            return
        await self._ask(b"STARTTLS\r\n", 220)
        assert self._context is not None
        await self._writer.start_tls(self._context)
        await self._ask(b"EHLO load.test\r\n", 250)
        user, password = self._plan.login
        await self._ask(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()) + b"\r\n", 235)

    async def send(self, message: bytes) -> None:
        assert self._writer is not None
        self._writer.write(f"MAIL FROM:<{self._plan.sender}>\r\nRCPT TO:<{self._plan.recipient}>\r\nDATA\r\n".encode("ascii"))
        for wanted in (250, 250, 354):
            await self._reply(wanted)
        await self._ask(message, 250)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.write(b"QUIT\r\n")
            self._writer.close()

    async def _ask(self, data: bytes, wanted: int) -> None:
        assert self._writer is not None
        self._writer.write(data)
        await self._reply(wanted)

    async def _reply(self, wanted: int) -> None:
        assert self._reader is not None
        while True:
            line = await self._reader.readline()
            if not line:
                raise ConnectionError("closed")
            if line[3:4] != b"-":
                break
        if int(line[:3]) != wanted:
            raise ConnectionError(f"wanted {wanted}, got {line.decode('utf-8', 'replace').strip()}")


async def offer(plan: Plan) -> Load:
    """Sends all messages. Raises TimeoutError after RUN_SECONDS."""
    load, numbers = Load(), itertools.count()
    context = ssl.create_default_context() if plan.login is not None else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    began = time.monotonic()

    async def work() -> None:
        session: _Session | None = None
        while (number := next(numbers)) < plan.messages:
            message = content(plan, number)
            if plan.rate is not None:
                await asyncio.sleep(began + number / plan.rate - time.monotonic())
            due = began + number / plan.rate if plan.rate is not None else time.monotonic()
            try:
                if session is None:
                    session = _Session(plan, context)
                    await session.open()
                await session.send(message)
                load.latencies.append(time.monotonic() - due)
            except (OSError, ValueError) as error:
                load.errors.append(str(error))
                session = None
            if session is not None and not plan.keep:
                await session.close()
                session = None
        if session is not None:
            await session.close()

    async with asyncio.timeout(RUN_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(plan.sessions):
            group.create_task(work())
    load.seconds = time.monotonic() - began
    return load
