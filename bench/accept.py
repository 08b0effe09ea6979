"""Accepting alone, next to Postfix's smtpd: connections kept open and new ones for each message, in clear and with TLS and AUTH. Delivery is held.

    uv run python bench/accept.py [--messages 1500] [--runs 3]

Both sides accept durably: Postroom signs and commits to its spool, where the destination is suspended; Postfix writes to its hold queue, with
OpenDKIM as its milter or alone. In clear the load is Postfix's smtp-source with 20 sessions, with TLS and AUTH it is load.py. Contenders take turns,
the first run of each case is not counted. At the end every queue must hold what was accepted, or this exits with 1. Needs what run.py needs.
"""

import argparse
import asyncio
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))  # the PostgreSQL server of the tests

from contenders import Contender, cpu_seconds, make_key
from measure import RECIPIENT, Case, Result, offer_case
from report import spread
from run import REFERENCE, machine, running

CONTENDERS = ["sqlite", "postfix", "plain"]
ALONE = "Postfix alone"


def cases(messages: int) -> list[Case]:
    """With TLS and AUTH fewer: handshakes cost as much as messages."""
    return [
        Case("kept open", messages, 4096, source=True),
        Case("new for each message", messages, 4096, keep=False, source=True),
        Case("TLS + AUTH, kept open", messages, 4096, login=True),
        Case("TLS + AUTH, new for each message", messages // 3, 4096, keep=False, login=True),
    ]


async def accept(contender: Contender, case: Case, result: Result) -> None:
    """One run."""
    groups = contender.groups()
    cpu, began = {name: cpu_seconds(pids) for name, pids in groups.items()}, time.monotonic()
    load = await offer_case(contender, case)
    result.accept_rates.append(case.messages / (time.monotonic() - began))
    for name, pids in groups.items():
        result.cpu_ms.setdefault(name, []).append((cpu_seconds(pids) - cpu[name]) * 1000 / case.messages)
    if load is not None:
        result.p99.append(load.percentile(99))


def row(name: str, case: Case, results: dict[tuple[str, str], Result]) -> str:
    result = results[name, case.name]
    median = statistics.median(result.accept_rates)
    ratios = [f"{median / statistics.median(results[base, case.name].accept_rates):.2f}" for base in (REFERENCE, ALONE)]
    parts = ", ".join(f"{part} {statistics.median(values):.2f}" for part, values in result.cpu_ms.items())
    latency = f"{statistics.median(result.p99) * 1000:.0f}" if result.p99 else ""
    return f"| {case.name} | {name} | {spread(result.accept_rates)} | {ratios[0]} | {ratios[1]} | {latency} | {parts} |"


async def measure(messages: int, runs: int, sink_port: int) -> bool:
    """Prints the table; whether every queue has what was accepted."""
    results: dict[tuple[str, str], Result] = {}
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = pathlib.Path(name)
        make_key(folder / "key.pem")
        async with running(CONTENDERS, folder, folder / "key.pem", sink_port) as contenders:
            for contender in contenders:
                await asyncio.to_thread(contender.hold, RECIPIENT.partition("@")[2])
            for case in cases(messages):
                for number in range(runs + 1):
                    for contender in contenders:
                        await accept(contender, case, results.setdefault((contender.name, case.name), Result()) if number else Result())
            offered = sum(case.messages for case in cases(messages)) * (runs + 1)
            kept = {contender.name: await asyncio.to_thread(contender.queued) for contender in contenders}
    print("| connections | contender | accepted/s | of Postfix + OpenDKIM | of Postfix alone | p99 ms | CPU ms a message |")
    print("|---|---|---|---|---|---|---|")
    for case in cases(messages):
        for name in kept:
            print(row(name, case, results))
    print(f"\n{offered} messages offered to each, in the queues: {', '.join(f'{name} {count}' for name, count in kept.items())}")
    return set(kept.values()) == {offered}


def main() -> int:
    """0 when every queue has what was accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sink-port", type=int, default=2598, help="where nothing must listen: nothing is sent")
    arguments = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    return 0 if asyncio.run(measure(arguments.messages, arguments.runs, arguments.sink_port)) else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.cmd}: {error.stderr!r}") from None
