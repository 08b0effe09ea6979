"""Postroom next to Postfix + OpenDKIM: signed, durable, end to end to one sink, in turn, on this machine, in this run.

    uv run python bench/run.py [--messages 2000] [--sizes 4,50] [--runs 3] [--results bench/results/first]

The load generator is Postfix's smtp-source (20 sessions kept open), the sink its smtp-sink; needs Debian's postfix and opendkim, and root. A run
counts only if every message arrived. Prints a table; writes Markdown and JSON. Ratios count: absolute figures belong to the machine.
"""

import argparse
import asyncio
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field

from contenders import Contender, Postfix, Postroom, cpu_seconds, make_key, wait_for_port

from postroom_core.testing.dns import DnsServer

SESSIONS = 20
RUN_SECONDS = 300.0


class CountingSink:
    """smtp-sink with its counters on."""

    def __init__(self, port: int) -> None:
        self.messages = 0
        self._process = subprocess.Popen(["smtp-sink", "-c", "-u", "nobody", f"127.0.0.1:{port}", "512"], stdout=subprocess.PIPE)
        threading.Thread(target=self._count, daemon=True).start()
        wait_for_port(port)

    def _count(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while data := os.read(self._process.stdout.fileno(), 65536):
            found = re.findall(rb"mesg=(\d+)", rest + data)
            rest = data[-32:]
            if found:
                self.messages = int(found[-1])

    def wait_for(self, count: int) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + RUN_SECONDS
        while self.messages < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.messages} of {count} messages arrived")
            time.sleep(0.002)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@dataclass
class Result:
    """The runs of one contender at one size."""

    rates: list[float] = field(default_factory=list)
    accept_rates: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)


def one_run(contender: Contender, sink: CountingSink, messages: int, octets: int, result: Result) -> None:
    """Offers `messages` and waits until all have arrived."""
    groups = contender.groups()
    before = {name: cpu_seconds(pids) for name, pids in groups.items()}
    target, began = sink.messages + messages, time.monotonic()
    source = ["smtp-source", "-d", "-s", str(SESSIONS), "-m", str(messages), "-l", str(octets), "-f", "a@d.example", "-t", "b@x.example"]
    subprocess.run([*source, f"127.0.0.1:{contender.port}"], check=True, capture_output=True)
    accepted = time.monotonic()
    sink.wait_for(target)
    result.rates.append(messages / (time.monotonic() - began))
    result.accept_rates.append(messages / (accepted - began))
    for name, pids in groups.items():
        result.cpu_ms.setdefault(name, []).append((cpu_seconds(pids) - before[name]) * 1000 / messages)


def spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(results: dict[tuple[str, int], Result], reference: str) -> list[str]:
    """Markdown rows."""
    rows = ["| contender | size | messages/s, end to end | accepted/s | CPU ms a message | ratio |", "|---|---|---|---|---|---|"]
    for (name, size), result in results.items():
        base = results.get((reference, size))
        ratio = statistics.median(result.rates) / statistics.median(base.rates) if base is not None else float("nan")
        cpu = ", ".join(f"{part} {statistics.median(values):.2f}" for part, values in result.cpu_ms.items())
        rows.append(f"| {name} | {size} KB | {spread(result.rates)} | {spread(result.accept_rates)} | {cpu} | {ratio:.2f} |")
    return rows


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


async def measure(arguments: argparse.Namespace, folder: pathlib.Path) -> dict[tuple[str, int], Result]:
    """All runs, the contenders in turn."""
    key = folder / "key.pem"
    make_key(key)
    sink_port = arguments.sink_port
    sink = CountingSink(sink_port)
    results: dict[tuple[str, int], Result] = {}
    async with DnsServer() as dns:
        dns.set("*", "MX", ["10 mx.test."])
        dns.set("mx.test", "A", ["127.0.0.1"])
        contenders: list[Contender] = []
        try:
            contenders.append(await asyncio.to_thread(Postroom, folder / "postroom", key, sink_port, dns.target))
            contenders.append(await asyncio.to_thread(Postfix, folder / "postfix", key, sink_port))
            for size in arguments.sizes:
                for number in range(arguments.runs + 1):
                    for contender in contenders:
                        # The first run of each size warms up and is not counted.
                        result = results.setdefault((contender.name, size), Result()) if number else Result()
                        await asyncio.to_thread(one_run, contender, sink, arguments.messages, size * 1024, result)
                        print(f"{size} KB, run {number}: {contender.name} {result.rates[-1]:.0f}/s", flush=True)
        finally:
            for contender in contenders:
                await asyncio.to_thread(contender.stop)
            sink.stop()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=[4, 50], help="KB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sink-port", type=int, default=2599)
    parser.add_argument("--results", type=pathlib.Path)
    arguments = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        results = asyncio.run(measure(arguments, pathlib.Path(folder)))
    text = "\n".join([*(f"- {name}: {value}" for name, value in about.items()), "", *table(results, "Postfix + OpenDKIM")])
    print(text)
    if arguments.results is not None:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.with_suffix(".md").write_text(text + "\n")
        plain = [{"contender": name, "size_kb": size, **vars(result)} for (name, size), result in results.items()]
        arguments.results.with_suffix(".json").write_text(json.dumps({"machine": about, "results": plain}, indent=1) + "\n")


if __name__ == "__main__":
    main()
