"""What a long queue costs: one delivery process on a spool with a given number of due messages.

    uv run python bench/long_queue.py [--rows 1000000] [--engine sqlite|postgres] [--destinations 1] [--seconds 15] [--results FILE]

Prints a table and writes JSON. Measured are:
- from the start of the process to the first message at the sink: the import of everything, the opening of the spool, the first claim;
- throughput and CPU at that depth: each delivery is followed by one accept, so the depth stays; a thousand rows are as good as an empty queue;
- claims, settlements and accepts by themselves, directly at the engine, where the depth would show first;
- memory of the process, size of the spool on the disk;
- every way to ask and to act, after the deliveries were suspended. An action on many is answered in parts; the slowest part counts.

Name server and sink are in the process of the bench and cost the same at every depth. Figures of different depths compare; absolute ones belong to
the machine.
"""

import argparse
import asyncio
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))  # the PostgreSQL server of the tests

from contenders import cpu_seconds
from spools import POOL, Group, Store, World, enqueue, message, store, world

from postroom.v1 import queue_pb2, queue_pb2_grpc
from postroom_core import rpc
from postroom_core.documents import Pool
from postroom_core.testing.sink import Received, Sink
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Batch, EventDetail, Limits, Settlement, State
from postroom_delivery.spool.opening import open_spool

T = TypeVar("T")
Act = queue_pb2.ActRequest
Figures = dict[str, float]
WARM_SECONDS = 2.0
START_SECONDS = 120.0
SAMPLE_SECONDS = 0.2
# A thousand messages that are acted on, and ten that have nothing in common with the rest; both suspended, so that they stay.
MANY = Group(1000, "many", tenant="many", suspended=True)
RARE = Group(10, "rare", tenant="rare", sender="rare@d.example", suspended=True)
CYCLES = 100
LONG_SECONDS = 15.0


class Count:
    """What has arrived at the sink, and when the first did."""

    def __init__(self) -> None:
        self.messages = 0
        self.first_at = 0.0

    def __call__(self, _message: Received) -> None:
        self.messages += 1
        self.first_at = self.first_at or time.monotonic()


async def started(running: World, count: Count) -> Figures:
    """Starts the process; seconds until it answers and until the first message has arrived."""
    began, before = time.monotonic(), cpu_seconds(running.pids())
    running.start()
    async with rpc.connect(running.target) as channel:
        await asyncio.wait_for(channel.channel_ready(), START_SECONDS)
    answers = time.monotonic() - began
    async with asyncio.timeout(START_SECONDS):
        while not count.messages:
            await asyncio.sleep(0.01)
    cpu = cpu_seconds(running.pids()) - before
    return {"answers after, s": answers, "first delivery after, s": count.first_at - began, "CPU to the first delivery, s": cpu}


async def throughput(running: World, count: Count, seconds: float) -> Figures:
    """Deliveries and accepts a second while each delivery is followed by an accept."""
    given = count.messages

    def owed() -> int:
        nonlocal given
        now = min(20, count.messages - given)
        given += now
        return now

    most = 0
    begins = time.monotonic() + WARM_SECONDS
    callers = [asyncio.create_task(enqueue(running.target, owed, lambda: f"c{count.messages}@d0.example", begins + seconds)) for _ in range(3)]
    await asyncio.sleep(WARM_SECONDS)
    before, accepted, began = count.messages, given, time.monotonic()
    spent = cpu_seconds(running.pids())
    while time.monotonic() < begins + seconds:
        await asyncio.sleep(SAMPLE_SECONDS)
        most = max(most, running.resident())
    took = time.monotonic() - began
    spent = cpu_seconds(running.pids()) - spent
    cpu_ms = spent * 1000 / max(1, count.messages - before)
    delivered, accepts = (count.messages - before) / took, (given - accepted) / took
    waits = [one for caller in callers for one in await caller]
    return {
        **{"delivered a second": delivered, "accepted beside it a second": accepts},
        **{"CPU of delivery and database, ms a message": cpu_ms},
        **{"accept p50, ms": statistics.median(waits) * 1000, "memory, MiB": most / 2**20},
    }


async def engine_itself(filled: Store) -> Figures:
    """Milliseconds a message of claiming, recording doubt, settling and accepting, and CPU of all together; the depth stays."""
    took: dict[str, list[float]] = {"claim": [], "doubt": [], "settle": [], "accept": []}
    messages = 0

    async def timed(name: str, work: Awaitable[Any], count: int) -> Any:
        began = time.monotonic()
        result = await work
        took[name].append((time.monotonic() - began) * 1000 / count)
        return result

    async with open_spool(lambda: filled.url, "bench-itself", _now(), lambda _: Limits(10, None, 100)) as spool:
        pids = [os.getpid(), *filled.pids()]
        before = cpu_seconds(pids)
        for _ in range(CYCLES):
            began = time.monotonic()
            batches: list[Batch] = (await spool.claim(_now(), 1, ()))[0]
            took["claim"].append((time.monotonic() - began) * 1000 / len(batches[0].messages))
            messages += await _cycle(spool, batches[0], timed)
        cpu_ms = (cpu_seconds(pids) - before) * 1000 / messages
    medians = {f"{name} itself, ms a message": statistics.median(values) for name, values in took.items()}
    return medians | {"CPU of the engine itself, ms a message": cpu_ms}


async def _cycle(spool: Spool, batch: Batch, timed: Callable[[str, Awaitable[Any], int], Awaitable[Any]]) -> int:
    """As many messages accepted as were claimed, and those settled; how many."""
    count = len(batch.messages)
    accepts = [spool.accept(message("d0.example", "mx:d0.test"), (0, b"x" * 1000)) for _ in range(count)]
    await timed("accept", asyncio.gather(*accepts), count)
    await timed("doubt", asyncio.gather(*(spool.doubt(message.claims) for message in batch.messages)), count)
    settled = [[Settlement(c, State.DELIVERED, EventDetail("delivered", text="ok")) for c in m.claims] for m in batch.messages]
    await timed("settle", asyncio.gather(*(spool.settle(_now(), one, ()) for one in settled)), count)
    await spool.release_slot(_now(), batch, 0)
    return count


class Asking:
    """Times questions and actions: seconds that passed, and seconds of CPU of delivery and database; nothing is delivered meanwhile."""

    def __init__(self, running: World, channel: Any) -> None:
        self._running = running
        self._queue = queue_pb2_grpc.QueueStub(channel)
        self.passed: Figures = {}
        self.cpu: Figures = {}
        self.rates: Figures = {}

    async def _timed(self, name: str, call: Awaitable[T]) -> T:
        began, before = time.monotonic(), cpu_seconds(self._running.pids())
        result = await call
        self.passed[name] = max(self.passed.get(name, 0.0), time.monotonic() - began)
        self.cpu[name] = max(self.cpu.get(name, 0.0), cpu_seconds(self._running.pids()) - before)
        return result

    async def stats(self) -> None:
        await self._timed("stats", self._queue.Stats(queue_pb2.StatsRequest(), timeout=120))

    async def suspend(self) -> None:
        request = queue_pb2.SuspendDestinationRequest(pool=POOL, destination="mx:d0.test", suspended=True)
        await self._timed("suspend", self._queue.SuspendDestination(request, timeout=120))

    async def ls(self, name: str, **which: Any) -> None:
        await self._timed(f"ls {name}".strip(), self._queue.List(queue_pb2.ListRequest(limit=100, **which), timeout=120))

    async def act(self, name: str, action: Act.Action.ValueType, **which: Any) -> None:
        """Of what is answered in parts the slowest part counts; what takes longer than LONG_SECONDS is left there."""
        changed, after, began = 0, "", time.monotonic()
        while time.monotonic() - began < LONG_SECONDS:
            request = Act(action=action, all=True, filter=queue_pb2.ListRequest(**which), after=after)
            response = await self._timed(name, self._queue.Act(request, timeout=120))
            changed, after = changed + response.changed, response.next
            if not after:
                break
        self.rates[f"{name}, recipients a second"] = changed / (time.monotonic() - began)


async def questions(running: World) -> Asking:
    """Every way to ask and to act."""
    async with rpc.connect(running.target) as channel:
        asking = Asking(running, channel)
        await asking.suspend()
        await asyncio.sleep(WARM_SECONDS)
        for _ in range(3):
            await asking.stats()
        await asking.ls("")
        await asking.ls("--domain of nearly all", domain="d0.example")
        await asking.ls("--domain rare", domain="rare0.example")
        await asking.ls("--domain of none", domain="absent.example")
        await asking.ls("--sender rare", sender="rare@d.example")
        await asking.ls("--sender of none", sender="absent@d.example")
        await asking.ls("--tenant rare", tenant="rare")
        await asking.ls("--destination rare", destination="mx:rare0.test")
        await asking.ls("--class of none", last_class="greylist")
        await asking.ls("--state held", states=["held"])
        await asking.ls("--state bounced", states=["bounced"])
        await asking.ls("--older than all", received_before_ms=1)
        for name, which in (("rare", {"domain": "rare0.example"}), ("of a destination", {"destination": "mx:many0.test"})):
            await asking.act(f"hold --all {name}", Act.HOLD, **which)
            await asking.act(f"release --all {name}", Act.RELEASE, **which)
            await asking.act(f"retry --all {name}", Act.RETRY, **which)
            await asking.act(f"bounce --all {name}", Act.BOUNCE, **which)
        await asking.act("hold --all", Act.HOLD)
        await asking.act("release --all", Act.RELEASE)
        return asking


async def measure(engine: str, rows: int, destinations: int, seconds: float) -> tuple[Figures, Asking]:
    """The figures of one depth, and those of questions and actions."""
    with tempfile.TemporaryDirectory(prefix="long-queue-") as name:
        folder, count = pathlib.Path(name), Count()
        filled = store(engine, folder)
        try:
            bulk = Group(rows, places=destinations)
            filling = await filled.fill([bulk, MANY, RARE])
            size = filled.size()
            itself = await engine_itself(filled)
            async with world(folder, filled, Pool(name=POOL), Sink(on_message=count)) as running:
                running.names(bulk)
                figures = await started(running, count)
                figures |= await throughput(running, count, seconds)
                asked = await questions(running)
                figures["memory with questions, MiB"] = running.resident() / 2**20
            figures |= itself | {"on disk, MiB": size / 2**20, "bulk load, s": filling}
            return figures, asked
        finally:
            filled.remove()


def _now() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--destinations", type=int, default=1, help="over how many destinations the messages are spread")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the measurement of throughput")
    parser.add_argument("--results", type=pathlib.Path, help="default: results/long-queue-ENGINE-ROWS.json beside this file")
    arguments = parser.parse_args()
    figures, asked = asyncio.run(measure(arguments.engine, arguments.rows, arguments.destinations, arguments.seconds))
    print(f"{arguments.engine}, {arguments.rows} due messages, {arguments.destinations} destinations")
    for name, value in figures.items():
        print(f"  {name:40} {value:10.2f}")
    print("  questions and actions: seconds, seconds of CPU, recipients a second")
    for name, value in asked.passed.items():
        rate = asked.rates.get(f"{name}, recipients a second")
        print(f"  {name:40} {value:10.3f} {asked.cpu[name]:10.2f} {f'{rate:10.0f}' if rate is not None else ''}")
    suffix = f"-{arguments.destinations}" if arguments.destinations > 1 else ""
    results = arguments.results or pathlib.Path(__file__).parent / "results" / f"long-queue-{arguments.engine}-{arguments.rows}{suffix}.json"
    about = {"cores": os.cpu_count(), "python": platform.python_version(), "load before": os.getloadavg()[0]}
    results.write_text(
        json.dumps({"machine": about, "figures": figures, "seconds": asked.passed, "cpu seconds": asked.cpu, "rates": asked.rates}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
