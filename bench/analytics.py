"""What counting the events costs: Postroom with analytics on and off, in turn, end to end to one sink, in this run.

    uv run python bench/analytics.py [--messages 1500] [--runs 5]

Needs Debian's postfix for smtp-source and smtp-sink. Prints both rates and the cost; exits with 1 when it is 10 % or more.
"""

import argparse
import asyncio
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))  # the PostgreSQL server of the tests

from contenders import Contender, Postroom, free_port, make_key
from measure import Case, CountingSink, Result, one_run
from report import spread

from postroom_core.testing.dns import DnsServer

MOST_COST = 0.10
OCTETS = 4096


async def measure(messages: int, runs: int, folder: pathlib.Path) -> dict[str, Result]:
    """The first run of each warms up and is not counted."""
    key, sink_port = folder / "key.pem", free_port()
    make_key(key)
    sink, results = CountingSink(sink_port), dict[str, Result]()
    case = Case("4 KB", messages, OCTETS, source=True)
    contenders: list[Contender] = []
    async with DnsServer() as dns:
        dns.set("*", "MX", ["10 mx.test."])
        dns.set("mx.test", "A", ["127.0.0.1"])
        try:
            for value in ("true", "false"):
                settings = (f"POSTROOM_ANALYTICS={value}",)
                contenders.append(await asyncio.to_thread(Postroom, folder / value, key, sink_port, dns.target, extra=settings))
            for number in range(runs + 1):
                for contender in contenders if number % 2 else reversed(contenders):
                    result = results.setdefault(contender.name, Result()) if number else Result()
                    await one_run(contender, sink, case, result)
                    print(f"run {number}: {contender.name} {result.rates[-1]:.0f}/s", flush=True)
        finally:
            for contender in contenders:
                await asyncio.to_thread(contender.stop)
            sink.stop()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1500)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        results = asyncio.run(measure(arguments.messages, arguments.runs, pathlib.Path(folder)))
    (on, counted), (off, plain) = sorted(results.items(), reverse=True)
    cpu = {name: statistics.median(values) for name, values in counted.cpu_ms.items()}
    spared = {name: statistics.median(values) for name, values in plain.cpu_ms.items()}
    cost = 1 - statistics.median(counted.rates) / statistics.median(plain.rates)
    print(f"{on}: {spread(counted.rates)} messages/s; {off}: {spread(plain.rates)} messages/s")
    print("CPU ms a message: " + ", ".join(f"{name} {cpu[name]:.2f} on, {spared[name]:.2f} off" for name in cpu))
    print(f"cost of analytics: {cost:.1%} of the throughput")
    if cost >= MOST_COST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
