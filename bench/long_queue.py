"""What a long queue costs: one delivery process on a spool with a given number of due messages.

    uv run python bench/long_queue.py [--rows 1000000] [--engine sqlite|postgres] [--destinations 1] [--seconds 15] [--results FILE]

Prints a table and writes JSON. Measured are:
- from the start of the process to the first message at the sink: the import of everything, the opening of the spool, the first claim;
- throughput and CPU at that depth: each delivery is followed by one accept, so the depth stays; a thousand rows are as good as an empty queue;
- claims, settlements and accepts by themselves, directly at the engine, where the depth would show first;
- memory of the process, size of the spool on the disk;
- every way to ask and to act, while the process delivers. An action on many is answered in parts, see ActResponse; what counts is the slowest.

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
from typing import Any

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

Figures = dict[str, float]
WARM_SECONDS = 2.0
START_SECONDS = 120.0
SAMPLE_SECONDS = 0.2
# A thousand messages that are acted on, and ten that have nothing in common with the rest; both suspended, so that they stay.
MANY = Group(1000, "many", tenant="many", suspended=True)
RARE = Group(10, "rare", tenant="rare", sender="rare@d.example", suspended=True)
CYCLES = 40


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
    began = time.monotonic()
    running.start()
    async with rpc.connect(running.target) as channel:
        await asyncio.wait_for(channel.channel_ready(), START_SECONDS)
    answers = time.monotonic() - began
    async with asyncio.timeout(START_SECONDS):
        while not count.messages:
            await asyncio.sleep(0.01)
    return {"answers after, s": answers, "first delivery after, s": count.first_at - began}


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
    """Milliseconds a message of claiming, recording doubt, settling and accepting; the depth stays."""
    took: dict[str, list[float]] = {"claim": [], "doubt": [], "settle": [], "accept": []}

    async def timed(name: str, work: Awaitable[Any], messages: int) -> Any:
        began = time.monotonic()
        result = await work
        took[name].append((time.monotonic() - began) * 1000 / messages)
        return result

    async with open_spool(lambda: filled.url, "bench-itself", _now(), lambda _: Limits(10, None, 100)) as spool:
        for _ in range(CYCLES):
            batches: list[Batch] = (await spool.claim(_now(), 1, ()))[0]
            if not batches:
                break
            await _cycle(spool, batches[0], timed)
    return {f"{name} itself, ms a message": statistics.median(values) for name, values in took.items() if values}


async def _cycle(spool: Spool, first: Batch, timed: Callable[[str, Awaitable[Any], int], Awaitable[Any]]) -> None:
    await spool.settle(_now(), [Settlement(c, State.DELIVERED, EventDetail("delivered", text="ok")) for m in first.messages for c in m.claims], ())
    await spool.release_slot(_now(), first, 0)
    batches = (await timed("claim", spool.claim(_now(), 1, ()), len(first.messages)))[0]
    for batch in batches:
        count = len(batch.messages)
        await timed("doubt", asyncio.gather(*(spool.doubt(message.claims) for message in batch.messages)), count)
        settled = [[Settlement(c, State.DELIVERED, EventDetail("delivered", text="ok")) for c in m.claims] for m in batch.messages]
        await timed("settle", asyncio.gather(*(spool.settle(_now(), one, ()) for one in settled)), count)
        await spool.release_slot(_now(), batch, 0)
        accepts = [spool.accept(message("d0.example", "mx:d0.test"), (0, b"x" * 1000)) for _ in range(count * 2)]
        await timed("accept", asyncio.gather(*accepts), count * 2)


async def questions(running: World) -> tuple[Figures, Figures]:
    """Seconds of each way to ask and to act: of one answer, and of what is answered in parts the slowest; and recipients a second of long actions."""
    found: Figures = {}
    rates: Figures = {}
    async with rpc.connect(running.target) as channel:
        queue = queue_pb2_grpc.QueueStub(channel)

        async def ask(name: str, **which: Any) -> None:
            began = time.monotonic()
            await queue.List(queue_pb2.ListRequest(limit=100, **which), timeout=60)
            found[f"ls {name}".strip()] = time.monotonic() - began

        async def act(name: str, action: queue_pb2.ActRequest.Action.ValueType, **which: Any) -> None:
            slowest, changed, after, began = 0.0, 0, "", time.monotonic()
            while True:
                part = time.monotonic()
                request = queue_pb2.ActRequest(action=action, all=True, filter=queue_pb2.ListRequest(**which), after=after)
                response = await queue.Act(request, timeout=120)
                slowest, changed, after = max(slowest, time.monotonic() - part), changed + response.changed, response.next
                if not after or time.monotonic() - began > 20:
                    break
            found[f"{name}, {changed} recipients"] = slowest
            if changed > MANY.rows:
                rates[f"{name}, recipients a second"] = changed / (time.monotonic() - began)

        for _ in range(3):
            began = time.monotonic()
            await queue.Stats(queue_pb2.StatsRequest(), timeout=60)
            found["stats"] = max(found.get("stats", 0), time.monotonic() - began)
        await ask("")
        await ask("--domain of nearly all", domain="d0.example")
        await ask("--domain rare", domain="rare0.example")
        await ask("--domain of none", domain="absent.example")
        await ask("--sender rare", sender="rare@d.example")
        await ask("--sender of none", sender="absent@d.example")
        await ask("--tenant rare", tenant="rare")
        await ask("--destination rare", destination="mx:rare0.test")
        await ask("--class of none", last_class="greylist")
        await ask("--state held", states=["held"])
        await ask("--state bounced", states=["bounced"])
        await ask("--older than all", received_before_ms=1)
        rare, many = {"domain": "rare0.example"}, {"destination": "mx:many0.test"}
        for name, which in (("rare", rare), ("a destination", many)):
            await act(f"hold --all {name}", queue_pb2.ActRequest.HOLD, **which)
            await act(f"release --all {name}", queue_pb2.ActRequest.RELEASE, **which)
            await act(f"retry --all {name}", queue_pb2.ActRequest.RETRY, **which)
        await act("bounce --all rare", queue_pb2.ActRequest.BOUNCE, **rare)
        await act("bounce --all a destination", queue_pb2.ActRequest.BOUNCE, **many)
        began = time.monotonic()
        await queue.SuspendDestination(queue_pb2.SuspendDestinationRequest(pool=POOL, destination="mx:d0.test", suspended=True), timeout=60)
        found["suspend"] = time.monotonic() - began
        await act("hold --all", queue_pb2.ActRequest.HOLD)
        await act("release --all", queue_pb2.ActRequest.RELEASE)
    return found, rates


async def measure(engine: str, rows: int, destinations: int, seconds: float) -> tuple[Figures, Figures]:
    """The figures of one depth, and the seconds of questions and actions."""
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
                asked, rates = await questions(running)
                figures |= rates
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
    for name, value in asked.items():
        print(f"  {name:40} {value:10.3f}")
    suffix = f"-{arguments.destinations}" if arguments.destinations > 1 else ""
    results = arguments.results or pathlib.Path(__file__).parent / "results" / f"long-queue-{arguments.engine}-{arguments.rows}{suffix}.json"
    about = {"cores": os.cpu_count(), "python": platform.python_version(), "load before": os.getloadavg()[0]}
    results.write_text(json.dumps({"machine": about, "figures": figures, "seconds": asked}, indent=1) + "\n")


if __name__ == "__main__":
    main()
