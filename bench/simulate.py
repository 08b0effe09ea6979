"""A simulated installation of many delivery processes on one real PostgreSQL, in virtual time: what it asks of the database.

    uv run python bench/simulate.py [--pods 100] [--per-day 100000000] [--seconds 20] [--destinations 2000] [--results FILE]

Real are the schedulers, the engine and the database; simulated are the clock, the arriving mail and the peers (a connection takes 100 ms, a message
50 ms, a transaction of the database 3 ms). Time stands while the database works and leaps to the next timer when it does not, so a figure "a
second" is a second of the simulated day, however slow this machine is. Destinations have a popularity of 1/rank; half of the mail is one
tenant's, the rest belongs to twenty others. Prints a table, writes JSON.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import pathlib
import random
import selectors
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))  # the PostgreSQL server of the tests

from spools import PostgresStore, message

from postroom_delivery.scheduler import Scheduler
from postroom_delivery.spool.model import Batch, EventDetail, Limits, LostLease, Settlement, State
from postroom_delivery.spool.postgres import open_postgres
from postroom_delivery.spool.postgres_link import Transaction

T = TypeVar("T")
CONNECT_SECONDS, MESSAGE_SECONDS, DATABASE_SECONDS = 0.1, 0.05, 0.003
TICK_SECONDS = 0.05
WARM_SECONDS = 5.0
# So long the real world has to answer before virtual time leaps: the notifications of the database come unasked.
QUIET_SECONDS = 0.0005
LIMITS = Limits(10, None, 100)
NOISY, TENANTS = "noisy", 20
DAY_SECONDS = 86_400


class _Selector(selectors.DefaultSelector):
    """Waits for the real world only while somebody waits for it; else virtual time leaps."""

    def __init__(self) -> None:
        super().__init__()
        self.virtual = 0.0
        self.busy = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        found = super().select(0.05 if self.busy else QUIET_SECONDS)
        if not found and not self.busy and timeout is not None:
            self.virtual += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the selector's."""

    def __init__(self) -> None:
        self.waits = _Selector()
        super().__init__(self.waits)

    def time(self) -> float:
        return self.waits.virtual


class VirtualClock:
    """See postroom_core.clock.Clock. The day begins at `epoch`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._epoch = time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        return self._epoch + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Spool:
    """The engine with a database that takes its virtual time. Everything that is not slowed here goes to the engine as it is."""

    def __init__(self, engine: Any, loop: VirtualLoop) -> None:
        self._engine = engine
        self._waits = loop.waits

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in ("accept", "claim", "doubt", "settle", "release_slot", "renew", "recover", "sweep"):
            return found

        async def slowed(*arguments: Any) -> Any:
            self._waits.busy += 1
            try:
                result = await found(*arguments)
            finally:
                self._waits.busy -= 1
            await asyncio.sleep(DATABASE_SECONDS)
            return result

        return slowed


class Day:
    """What happened: statements by name, transactions, connections, and how long each tenant's messages took."""

    def __init__(self, clock: VirtualClock, message_seconds: float = MESSAGE_SECONDS) -> None:
        self.clock = clock
        self._message_seconds = message_seconds
        self.statements: collections.Counter[str] = collections.Counter()
        self.calls: collections.Counter[str] = collections.Counter()
        self.waits: dict[str, list[float]] = collections.defaultdict(list)
        self.open = 0
        self.most_open = 0
        self.accepted = 0

    def reset(self) -> None:
        """What was before does not count."""
        self.statements.clear()
        self.waits.clear()
        self.accepted, self.most_open = 0, self.open

    async def peer(self, batch: Batch, spool: Any, scheduler: Scheduler) -> None:
        """A worker whose peer takes everything."""
        first, work = batch, batch
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(CONNECT_SECONDS)
            found: Batch | None = work
            while found is not None:
                for message in found.messages:
                    await asyncio.sleep(self._message_seconds)
                    with contextlib.suppress(LostLease):
                        await spool.doubt(message.claims)
                        now = self.clock.now_ms()
                        self.waits[message.tenant].append((now - message.received_at) / 1000)
                        await spool.settle(now, [Settlement(c, State.DELIVERED, EventDetail("delivered", text="ok")) for c in message.claims], ())
                found = await scheduler.more(batch.key)
        finally:
            self.open -= 1
            await spool.release_slot(self.clock.now_ms(), first, 0)


async def arriving(spools: Sequence[Any], day: Day, rate: float, destinations: int, until: float) -> None:
    """Mail at a steady rate, each message to any of the processes, as a load balancer would give it."""
    chance = random.Random(1)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, destinations + 1)))
    owed = 0.0
    pending: set[asyncio.Task[Any]] = set()
    while day.clock.monotonic() < until:
        owed += rate * TICK_SECONDS
        for _ in range(int(owed)):
            (number,) = chance.choices(range(destinations), cum_weights=weights)
            name = f"d{number}.example"
            tenant = NOISY if chance.random() < 0.5 else f"t{chance.randrange(TENANTS)}"
            task = asyncio.create_task(
                chance.choice(spools).accept(replace(message(name, name, tenant, 100), received_at=day.clock.now_ms()), (0, b"x" * 100))
            )
            pending.add(task)
            task.add_done_callback(pending.discard)
            day.accepted += 1
        owed -= int(owed)
        await asyncio.sleep(TICK_SECONDS)
    await asyncio.gather(*pending)


def counting(day: Day) -> Callable[[], None]:
    """Counts every statement of every engine in this process, with begin, commit and the clock; gives back what ends it."""
    fetch = Transaction.fetch

    async def counted(self: Transaction, name: str, *values: Any) -> list[Any]:
        day.statements[name] += 1
        return await fetch(self, name, *values)

    Transaction.fetch = counted  # type: ignore[method-assign]

    def end() -> None:
        Transaction.fetch = fetch  # type: ignore[method-assign]

    return end


async def simulate(store: PostgresStore, arguments: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    clock = VirtualClock(loop)
    day = Day(clock)
    rate = arguments.per_day / DAY_SECONDS
    real = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(counting(day))
        spools = []
        for number in range(arguments.pods):
            opening = open_postgres(lambda: store.url, f"pod{number}", lambda _: LIMITS, caller_clock=True)
            spools.append(Spool(await _busy(loop, stack.enter_async_context(opening)), loop))
        schedulers = []
        for spool in spools:
            spool_ = spool
            scheduler = Scheduler(spool_, clock, lambda batch, owner, spool=spool_: day.peer(batch, spool, owner))  # type: ignore[misc]
            schedulers.append(scheduler)
        tasks = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
        began = clock.monotonic()
        load = asyncio.create_task(arriving(spools, day, rate, arguments.destinations, began + WARM_SECONDS + arguments.seconds))
        await asyncio.sleep(WARM_SECONDS)
        day.reset()
        before = await _transactions(loop, store)
        connections = 0
        while clock.monotonic() < began + WARM_SECONDS + arguments.seconds:
            await asyncio.sleep(1.0)
            connections = max(connections, await _connections(loop, store))
        after = await _transactions(loop, store)
        took = clock.monotonic() - began - WARM_SECONDS
        await load
        figures = _figures(day, took, after - before, connections) | {"real seconds": time.monotonic() - real}
        await asyncio.gather(*(scheduler.drain(30) for scheduler in schedulers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loop.waits.busy += 1  # the end is real: connections close
        return figures


def _figures(day: Day, took: float, transactions: int, connections: int) -> dict[str, Any]:
    waits = {tenant: statistics.quantiles(found, n=20)[-1] for tenant, found in day.waits.items() if len(found) > 1}
    others = [wait for tenant, wait in waits.items() if tenant != NOISY]
    delivered = sum(map(len, day.waits.values()))
    return {
        "accepted a second": day.accepted / took,
        "delivered a second": delivered / took,
        "transactions a second": transactions / took,
        "statements a second": sum(day.statements.values()) / took,
        "statements a message": sum(day.statements.values()) / max(1, delivered),
        "claims a second": day.statements["take_arrivals"] / took,
        "database connections": connections,
        "connections to peers, most": day.most_open,
        "p95 of the noisy tenant, s": waits.get(NOISY, 0.0),
        "p95 of the others, median, s": statistics.median(others) if others else 0.0,
        "p95 of the others, worst, s": max(others, default=0.0),
        "by statement": {name: count / took for name, count in day.statements.most_common(12)},
    }


async def _busy(loop: VirtualLoop, work: Awaitable[T]) -> T:
    """Its result; virtual time stands meanwhile."""
    loop.waits.busy += 1
    try:
        return await work
    finally:
        loop.waits.busy -= 1


async def _transactions(loop: VirtualLoop, store: PostgresStore) -> int:
    text = "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = current_database()"
    return int(await _busy(loop, asyncio.to_thread(store.server.sql, text, store.url)))


async def _connections(loop: VirtualLoop, store: PostgresStore) -> int:
    text = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'postroom-delivery%'"
    return int(await _busy(loop, asyncio.to_thread(store.server.sql, text, store.url)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--per-day", type=float, default=1e8)
    parser.add_argument("--seconds", type=float, default=20.0, help="of virtual time, after five to warm up")
    parser.add_argument("--destinations", type=int, default=2000)
    parser.add_argument("--results", type=pathlib.Path, help="default: results/simulate-PODS.json beside this file")
    arguments = parser.parse_args()
    store = PostgresStore(connections=arguments.pods * 9 + 20)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            figures = runner.run(simulate(store, arguments))
    finally:
        store.remove()
    print(f"{arguments.pods} pods, {arguments.per_day:.0e} messages a day, {arguments.destinations} destinations")
    for name, value in figures.items():
        print(f"  {name:32} {value:12.2f}" if isinstance(value, int | float) else f"  {name}: " + ", ".join(f"{k} {v:.0f}" for k, v in value.items()))
    results = arguments.results or pathlib.Path(__file__).parent / "results" / f"simulate-{arguments.pods}.json"
    results.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
