"""Whether a dead domain, a tarpit or a tenant with a huge backlog slows the others (P9).

    uv run python bench/fairness.py [--engine sqlite|postgres] [--scenario dead|tarpit|tenant] [--rows N] [--seconds 15] [--results FILE]

The others are one tenant that writes to twenty destinations. First the process has them alone: as fast as they go, then at half of that, which is
what they offer from then on. Then the spool is filled with the disturber's backlog, and the same offer is made again:
- dead: a domain whose host refuses connections, tried again after a second (ten connections may be open at once);
- tarpit: a host that takes MAIL and never answers again;
- tenant: another tenant's messages to the same twenty destinations.

With `--virtual` the noisy tenant is simulated: the real scheduler and engine, a clock that leaps, peers that take half a second for a message, five
destinations of four connections, all of which the noisy tenant wants. Then nothing depends on the machine.

Prints a table, writes JSON, and ends with 1 when the others kept less than 80 % of their rate. Absolute figures belong to the machine.
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
from dataclasses import replace
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))  # the PostgreSQL server of the tests

from simulate import Day, Spool, VirtualClock, VirtualLoop
from spools import POOL, Group, World, enqueue, message, store, world

from postroom_core import rpc
from postroom_core.documents import Pool, Retry
from postroom_core.testing.faults import Hang, Rule, script
from postroom_core.testing.sink import Received, Sink
from postroom_delivery.scheduler import Scheduler
from postroom_delivery.spool.model import Limits
from postroom_delivery.spool.opening import open_spool
from postroom_delivery.spool.postgres import open_postgres

PLACES = 20
OTHERS = Group(0, "o", PLACES, "others")
DISTURBERS = {
    "dead": Group(100_000, "dead", 1, "dead"),
    "tarpit": Group(10_000, "tarpit", 1, "tarpit"),
    "tenant": Group(1_000_000, "o", PLACES, "noisy"),
}
DEAD_ADDRESS, TARPIT_ADDRESS = "127.0.0.3", "127.0.0.2"
LEAST = 0.8
# In flight while the others go as fast as they can: enough for twenty destinations, and no queue of its own.
WINDOW = 200
WARM_SECONDS = 3.0
_MARK = "other-"
# Of the simulation: twenty connections carry forty messages a second, of which the others want a fifth; the noisy tenant has more than a hundred for
# each connection, which is what one may carry.
PEER_SECONDS, VIRTUAL_PLACES, VIRTUAL_RATE, VIRTUAL_WARM_SECONDS, VIRTUAL_ROWS = 0.5, 5, 8, 8.0, 3000
VIRTUAL_LIMITS = Limits(4, None, 100)


class Arrivals:
    """What of the others has arrived, with the seconds from the hand-over to the arrival; and what of the disturber."""

    def __init__(self) -> None:
        self.sent: dict[str, float] = {}
        self.seconds: list[float] = []
        self.disturber = 0

    @property
    def in_flight(self) -> int:
        return len(self.sent)

    def address(self) -> str:
        """A new address of the others."""
        number = len(self.seconds) + len(self.sent)
        made = f"{_MARK}{number}-{time.monotonic_ns()}@o{number % PLACES}.example"
        self.sent[made] = time.monotonic()
        return made

    def __call__(self, message: Received) -> None:
        for recipient in message.recipients:
            if (sent := self.sent.pop(recipient, None)) is not None:
                self.seconds.append(time.monotonic() - sent)
            elif not recipient.startswith(_MARK):
                self.disturber += 1


async def offered(running: World, arrivals: Arrivals, rate: float | None, seconds: float) -> dict[str, float]:
    """What of the others arrives a second, and after how long, when `rate` a second are offered; as much as goes when None."""
    began, given = time.monotonic(), 0

    def owed() -> int:
        nonlocal given
        now = int((time.monotonic() - began) * rate) - given if rate is not None else WINDOW - arrivals.in_flight
        now = max(0, min(20, now))
        given += now
        return now

    until = began + WARM_SECONDS + seconds
    callers = [asyncio.create_task(enqueue(running.target, owed, arrivals.address, until, OTHERS.tenant)) for _ in range(3)]
    await asyncio.sleep(WARM_SECONDS)
    before, others = len(arrivals.seconds), arrivals.disturber
    measured = time.monotonic()
    await asyncio.gather(*callers)
    took = time.monotonic() - measured
    waits = arrivals.seconds[before:]
    return {
        **{"a second": len(waits) / took, "disturber a second": (arrivals.disturber - others) / took},
        **{"p50, s": statistics.median(waits) if waits else took, "p95, s": statistics.quantiles(waits, n=20)[-1] if len(waits) > 1 else took},
    }


async def measure(engine: str, disturber: Group, seconds: float) -> dict[str, dict[str, float]]:
    """The figures alone and disturbed, of the same offer."""
    pool, arrivals = Pool(name=POOL, retry=Retry(initial=1.0)), Arrivals()
    with tempfile.TemporaryDirectory(prefix="fairness-") as name:
        folder, filled = pathlib.Path(name), store(engine, pathlib.Path(name))
        try:
            await filled.fill([])
            async with world(folder, filled, pool, Sink(on_message=arrivals)) as running:
                tarpit = Sink(TARPIT_ADDRESS, running.sink.port, script=script([Rule("MAIL", Hang())]))
                async with tarpit:
                    _names(running, disturber)
                    await _serving(running)
                    most = await offered(running, arrivals, None, seconds / 2)
                    alone = await offered(running, arrivals, most["a second"] / 2, seconds)
                    await asyncio.to_thread(running.stop)
                    arrivals.sent.clear()
                    await filled.fill([disturber])
                    await _serving(running)
                    disturbed = await offered(running, arrivals, most["a second"] / 2, seconds)
                    await asyncio.to_thread(running.stop)
            return {"most": most, "alone": alone, "disturbed": disturbed}
        finally:
            filled.remove()


async def simulated(engine: str, rows: int, seconds: float) -> dict[str, dict[str, float]]:
    """The figures of the others alone and beside a noisy tenant's `rows` messages, in virtual time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    clock = VirtualClock(loop)
    day = Day(clock, PEER_SECONDS)
    with tempfile.TemporaryDirectory(prefix="fairness-") as name:
        made = store(engine, pathlib.Path(name))
        try:
            if engine == "postgres":
                opening: Any = open_postgres(lambda: made.url, "sim", lambda _: VIRTUAL_LIMITS, caller_clock=True)
            else:
                opening = open_spool(lambda: made.url, "sim", clock.now_ms(), lambda _: VIRTUAL_LIMITS)
            loop.waits.busy += 1
            async with opening as opened:
                loop.waits.busy -= 1
                spool: Any = Spool(opened, loop)
                scheduler = Scheduler(spool, clock, lambda batch, owner: day.peer(batch, spool, owner))
                running = asyncio.create_task(scheduler.run())
                alone = await _steady(day, spool, seconds)
                await asyncio.gather(*(_hand_over(day, spool, number % VIRTUAL_PLACES, "noisy") for number in range(rows)))
                disturbed = await _steady(day, spool, seconds)
                scheduler.draining = True
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await scheduler.drain(0)
                loop.waits.busy += 1  # the end is real
        finally:
            made.remove()
    return {"alone": alone, "disturbed": disturbed}


async def _steady(day: Day, spool: Any, seconds: float) -> dict[str, float]:
    """The others offer VIRTUAL_RATE a second; what of it arrives, after as long as a queue needs to fill."""
    accepts = []
    for number in range(int((seconds + VIRTUAL_WARM_SECONDS) * VIRTUAL_RATE)):
        if number == int(VIRTUAL_WARM_SECONDS * VIRTUAL_RATE):
            day.reset()
        accepts.append(asyncio.create_task(_hand_over(day, spool, number % VIRTUAL_PLACES, OTHERS.tenant)))
        await asyncio.sleep(1 / VIRTUAL_RATE)
    await asyncio.gather(*accepts)
    waits = day.waits[OTHERS.tenant]
    p95 = statistics.quantiles(waits, n=20)[-1] if len(waits) > 1 else seconds
    figures = {"a second": len(waits) / seconds, "disturber a second": len(day.waits["noisy"]) / seconds}
    return figures | {"p50, s": statistics.median(waits) if waits else seconds, "p95, s": p95}


async def _hand_over(day: Day, spool: Any, place: int, tenant: str) -> None:
    name = f"o{place}.example"
    await spool.accept(replace(message(name, name, tenant, 100), received_at=day.clock.now_ms()), (0, b"x" * 100))


async def _serving(running: World) -> None:
    running.start()
    async with rpc.connect(running.target) as channel:
        await asyncio.wait_for(channel.channel_ready(), 120)


def _names(running: World, disturber: Group) -> None:
    running.names(OTHERS)
    running.names(disturber)
    running.dns.set("dead0.test", "A", [DEAD_ADDRESS])
    running.dns.set("tarpit0.test", "A", [TARPIT_ADDRESS])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--scenario", choices=tuple(DISTURBERS), default="tenant")
    parser.add_argument("--rows", type=int, help="of the disturber; default: " + ", ".join(f"{name} {g.rows}" for name, g in DISTURBERS.items()))
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--results", type=pathlib.Path, help="default: results/fairness-ENGINE-SCENARIO.json beside this file")
    parser.add_argument("--virtual", action="store_true", help="the scenario `tenant` in virtual time")
    arguments = parser.parse_args()
    given = DISTURBERS[arguments.scenario]
    disturber = Group(arguments.rows or given.rows, given.prefix, given.places, given.tenant)
    if arguments.virtual:
        disturber = replace(DISTURBERS["tenant"], rows=arguments.rows or VIRTUAL_ROWS)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            found = runner.run(simulated(arguments.engine, disturber.rows, arguments.seconds))
    else:
        found = asyncio.run(measure(arguments.engine, disturber, arguments.seconds))
    kept = found["disturbed"]["a second"] / found["alone"]["a second"]
    print(f"{arguments.engine}, {arguments.scenario} with {disturber.rows} messages: the others keep {kept:.0%}")
    print(f"  {'':10} {'a second':>10} {'p50, s':>8} {'p95, s':>8} {'disturber a second':>20}")
    for name, figures in found.items():
        numbers = f"{figures['a second']:10.1f} {figures['p50, s']:8.3f} {figures['p95, s']:8.3f} {figures['disturber a second']:20.1f}"
        print(f"  {name:10} {numbers}")
    results = (
        arguments.results
        or pathlib.Path(__file__).parent / "results" / f"fairness-{arguments.engine}-{'virtual' if arguments.virtual else arguments.scenario}.json"
    )
    about = {"cores": os.cpu_count(), "python": platform.python_version(), "rows": disturber.rows}
    results.write_text(json.dumps({"machine": about, "kept": kept, **found}, indent=1) + "\n")
    return 0 if kept >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
