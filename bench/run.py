"""Postroom next to Postfix + OpenDKIM: signed, durable, end to end to one sink, in turn, on this machine, in this run.

    uv run python bench/run.py [--cases 4k,50k,login,latency] [--contenders …] [--messages 2000] [--runs 5] [--results FILE]

Cases: `4k` and `50k` by Postfix's smtp-source over 20 sessions kept open; `login` with STARTTLS and AUTH on a new connection for each message;
`latency` at 80 % of what Postfix + OpenDKIM took in `4k`, the same for everybody; `sessions` from 1 to 200 of them. The sink is Postfix's
smtp-sink. Before anything is measured every contender sends messages to a sink that keeps them: each must arrive once, signed. A run counts
only if every message arrived. Needs Debian's postfix, opendkim, sasl2-bin and libsasl2-modules, and root. Ratios count: absolute figures
belong to the machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))  # the PostgreSQL server of the tests

from contenders import Contender, Postfix, Postroom, make_key
from measure import Case, CountingSink, Result, one_run, syncs, verify
from report import table

from postroom_core.testing.dns import DnsServer

CONTENDERS = ("sqlite", "postgres", "postfix", "plain")
REFERENCE = "Postfix + OpenDKIM"
CASES = ("4k", "50k", "login", "latency", "sessions")
VERIFIED = 50
SYNCED = 400
Results = dict[tuple[str, str], Result]


def cases(names: list[str], messages: int) -> list[Case]:
    """The cases in the order in which they run; `latency` gets its rate when `4k` is known."""
    known = {
        "4k": [Case("4 KB", messages, 4096, source=True)],
        "50k": [Case("50 KB", messages, 51200, source=True)],
        "login": [Case("TLS + AUTH, new connections, 4 KB", messages // 2, 4096, keep=False, login=True)],
        "latency": [Case("latency, 4 KB", messages, 4096, sessions=100, rate=1.0)],
        "sessions": [Case(f"{sessions} sessions, 4 KB", messages, 4096, sessions=sessions, source=True) for sessions in (1, 5, 20, 50, 200)],
    }
    return [case for name in CASES if name in names for case in known[name]]


def machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    postfix = subprocess.run(["postconf", "-d", "-h", "mail_version"], capture_output=True, text=True).stdout.strip()
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory} GiB",
        "python": platform.python_version(),
        "postfix": postfix,
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


@contextlib.asynccontextmanager
async def running(names: list[str], folder: pathlib.Path, key: pathlib.Path, sink_port: int) -> AsyncIterator[list[Contender]]:
    """The contenders, started; ended in any case."""
    async with DnsServer() as dns:
        dns.set("*", "MX", ["10 mx.test."])
        dns.set("mx.test", "A", ["127.0.0.1"])
        start: dict[str, Callable[[], Contender]] = {
            "sqlite": lambda: Postroom(folder / "sqlite", key, sink_port, dns.target),
            "postgres": lambda: Postroom(folder / "postgres", key, sink_port, dns.target, postgres=True),
            "postfix": lambda: Postfix(folder / "postfix", key, sink_port),
            "plain": lambda: Postfix(folder / "plain", key, sink_port, signed=False),
        }
        found: list[Contender] = []
        try:
            for name in names:
                found.append(await asyncio.to_thread(start[name]))
            yield found
        finally:
            for contender in found:
                await asyncio.to_thread(contender.stop)


async def measure(arguments: argparse.Namespace, folder: pathlib.Path) -> tuple[Results, dict[str, float | None]]:
    """All runs, the contenders in turn; and the syncs of each."""
    key = folder / "key.pem"
    make_key(key)
    results: Results = {}
    async with running(arguments.contenders, folder, key, arguments.sink_port) as contenders:
        for contender in contenders:
            await verify(contender, arguments.sink_port, key, VERIFIED)
            print(f"{contender.name}: {VERIFIED} messages arrived once{' and signed' if contender.signed else ''}", flush=True)
        sink = CountingSink(arguments.sink_port)
        try:
            for case in cases(arguments.cases, arguments.messages):
                await _case(with_rate(case, results), arguments.runs, contenders, sink, results)
            counted = contenders if arguments.syncs else []
            return results, {contender.name: await _syncs(contender) for contender in counted}
        finally:
            sink.stop()


def with_rate(case: Case, results: Results) -> Case:
    """The latency case at 80 % of the reference's own best rate; without that known, the case as it is."""
    reference = results.get((REFERENCE, "4 KB"))
    if case.rate is None or reference is None:
        return case
    return Case(case.name, case.messages, case.octets, case.sessions, rate=0.8 * statistics.median(reference.accept_rates))


async def _case(case: Case, runs: int, contenders: list[Contender], sink: CountingSink, results: Results) -> None:
    for number in range(runs + 1):
        for contender in contenders:
            # The first run of each case warms up and is not counted.
            result = results.setdefault((contender.name, case.name), Result()) if number else Result()
            await one_run(contender, sink, case, result)
            print(f"{case.name}, run {number}: {contender.name} {result.rates[-1]:.0f}/s", flush=True)


async def _syncs(contender: Contender) -> float | None:
    source = ["smtp-source", "-d", "-s", "20", "-m", str(SYNCED), "-l", "4096", "-f", "a@d.example", "-t", "b@x.example"]
    offered = subprocess.Popen([*source, f"127.0.0.1:{contender.port}"])
    return await asyncio.to_thread(syncs, contender, offered, SYNCED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["4k", "50k", "login", "latency"])
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=["sqlite", "postgres", "postfix"], help=",".join(CONTENDERS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sink-port", type=int, default=2599)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--no-syncs", dest="syncs", action="store_false", help="leave out counting fsync by strace")
    arguments = parser.parse_args()
    if unknown := [*(set(arguments.cases) - set(CASES)), *(set(arguments.contenders) - set(CONTENDERS))]:
        parser.error(f"unknown: {', '.join(unknown)}; there are the cases {', '.join(CASES)} and the contenders {', '.join(CONTENDERS)}")
    about = machine()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        results, synced = asyncio.run(measure(arguments, pathlib.Path(folder)))
    text = "\n".join([*(f"- {name}: {value}" for name, value in about.items()), "", *table(results, synced, REFERENCE)])
    print(text)
    if arguments.results is not None:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.with_suffix(".md").write_text(text + "\n")
        plain = [{"contender": name, "case": case, **vars(result)} for (name, case), result in results.items()]
        arguments.results.with_suffix(".json").write_text(json.dumps({"machine": about, "syncs": synced, "results": plain}, indent=1) + "\n")


if __name__ == "__main__":
    main()
