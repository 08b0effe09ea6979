"""Several delivery processes on one PostgreSQL, against one name server and one sink in the test's own loop. As a program: one such process."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import psutil

from postroom.v1 import queue_pb2, queue_pb2_grpc, spool_pb2, spool_pb2_grpc
from postroom_core import lifecycle, logs, rpc, settings
from postroom_core.directory import publish
from postroom_core.documents import Pool
from postroom_core.ids import new_message_id
from postroom_core.testing.dns import DnsServer
from postroom_core.testing.faults import Script
from postroom_core.testing.sink import Received, Sink
from postroom_delivery import app
from postroom_delivery.settings import Settings

from integration.delivery.harness import BODY, HEADERS, Running

LEASE_MS = 2000


@dataclass
class Process:
    """One delivery process, which may be dead."""

    folder: pathlib.Path
    environment: dict[str, str]
    running: subprocess.Popen[bytes] | None = None
    up: bool = False
    stuck: int = 0

    @property
    def target(self) -> str:
        return f"unix:{self.folder}/delivery.sock"

    async def start(self) -> None:
        """Returns when it takes messages."""
        with (self.folder / "log").open("ab") as log:
            environment = self.environment | {"POSTROOM_LISTEN": self.target}
            self.running = subprocess.Popen([sys.executable, __file__, str(LEASE_MS)], env=environment, stdout=log, stderr=log)
        async with rpc.connect(self.target) as channel:
            await asyncio.wait_for(channel.channel_ready(), 120)
        self.up = True

    def signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        self.running.send_signal(number)

    def stop(self, sink_port: int) -> None:
        """SIGSTOP. Its connections to the sink stay open, because only the process can close them: `stuck` counts them."""
        self.up = False
        self.signal(signal.SIGSTOP)
        self.stuck = self.connections(sink_port)

    def connections(self, port: int) -> int:
        """How many it has to this port."""
        assert self.running is not None
        found = psutil.Process(self.running.pid).net_connections("tcp4")
        return sum(1 for one in found if one.status == psutil.CONN_ESTABLISHED and one.raddr and one.raddr.port == port)

    async def go_on(self, sink_port: int) -> None:
        """SIGCONT; returns when the connections that it held are closed or counted again by the spool."""
        self.signal(signal.SIGCONT)
        self.up = True
        while self.stuck:
            await asyncio.sleep(0.05)
            self.stuck = min(self.stuck, self.connections(sink_port)) if self.up else 0

    def kill(self) -> None:
        """kill -9."""
        self.up = False
        self.stuck = 0
        if self.running is not None:
            self.running.kill()
            self.running.wait(10)


@dataclass
class Fleet:
    """The processes and their world. `most_open` is the largest number of connections that the sink had at a message's arrival, those of stopped
    processes left out; `arrivals` are the monotonic times of the messages.
    """

    processes: list[Process]
    dns: DnsServer
    sink: Sink
    accepted: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    most_open: int = 0
    arrivals: list[float] = field(default_factory=list)

    def keep(self, message: Received) -> None:
        self.received.append(message)
        self.arrivals.append(time.monotonic())
        self.most_open = max(self.most_open, self.sink.open_sessions - sum(process.stuck for process in self.processes))

    def most_within(self, seconds: float) -> int:
        """The most messages that arrived in any stretch of so many seconds."""
        return max(bisect.bisect_right(self.arrivals, first + seconds) - number for number, first in enumerate(self.arrivals))

    async def enqueue(self, process: Process, domain: str = "x.example") -> str:
        """Hands one message to a process, and the same one to any other while nobody has answered: its id."""
        now = Running.now()
        message_id = new_message_id(now)
        envelope = Running.envelope(message_id, f"{message_id}@{domain}")
        end = spool_pb2.End(header_block=HEADERS, body_size=len(BODY), eight_bit=False)
        chunk = spool_pb2.EnqueueChunk(envelope=envelope, body=BODY, end=end)
        for candidate in [process, *self.processes] * 40:
            if not candidate.up:
                await asyncio.sleep(0.1)
                continue
            try:
                async with rpc.connect(candidate.target) as channel:
                    response = await spool_pb2_grpc.SpoolStub(channel).Enqueue(iter([chunk]), timeout=5)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
                continue
            if response.HasField("accepted"):
                self.accepted.append(message_id)
                return message_id
        raise AssertionError("no process accepted the message")

    async def events(self, message_id: str, *until: str) -> list[queue_pb2.Event]:
        """The events of a message up to the first of one of these kinds, as any living process tells them."""
        for candidate in self.processes * 40:
            seen = []
            try:
                async with rpc.connect(candidate.target) as channel:
                    request = queue_pb2.EventsRequest(message_id=message_id, follow=True)
                    async for event in queue_pb2_grpc.QueueStub(channel).Events(request, timeout=20):
                        seen.append(event)
                        if event.kind in until:
                            return seen
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
        raise AssertionError(seen)

    async def stats(self, process: Process) -> queue_pb2.StatsResponse:
        async with rpc.connect(process.target) as channel:
            return await queue_pb2_grpc.QueueStub(channel).Stats(queue_pb2.StatsRequest(), timeout=10)

    def copies(self) -> Counter[str]:
        """How often each accepted message has arrived, by its id."""
        return Counter(recipient.partition("@")[0] for message in self.received for recipient in message.recipients)


@contextlib.asynccontextmanager
async def fleet(folder: pathlib.Path, url: str, count: int, pool: Pool, script: Script | None = None) -> AsyncIterator[Fleet]:
    """`count` processes until the block ends."""
    publish(folder / "directory", [pool], "1")
    async with DnsServer() as dns, contextlib.AsyncExitStack() as stack:
        made = Fleet([], dns, Sink())
        made.sink = await stack.enter_async_context(Sink(script=script, on_message=made.keep))
        dns.set("*", "MX", ["10 mx.test."])
        dns.set("mx.test", "A", ["127.0.0.1"])
        common = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")} | {
            "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
            "POSTROOM_DIRECTORY": str(folder / "directory"),
            "POSTROOM_HOSTNAME": "mta.d.example",
            "POSTROOM_SPOOL_URL": url,
            "POSTROOM_RESOLVERS": dns.target,
            "POSTROOM_REMOTE_SMTP_PORT": str(made.sink.port),
            "POSTROOM_ALLOWED_MX_NETWORKS": "127.0.0.0/8",
            "POSTROOM_LOG_LEVEL": "warning",
        }
        for number in range(count):
            place = folder / str(number)
            place.mkdir()
            made.processes.append(Process(place, common))
        try:
            await asyncio.gather(*(process.start() for process in made.processes))
            yield made
        finally:
            for process in made.processes:
                process.kill()


def main() -> None:
    """A delivery process with a short lease."""
    configured = settings.load(Settings)
    logs.configure("delivery", configured.log_level, addresses=False)
    lifecycle.run(lambda stopping: app.run(configured, stopping, lease_ms=int(sys.argv[1])))


if __name__ == "__main__":
    main()
