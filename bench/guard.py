"""Fails when Postroom has become much slower next to Postfix + OpenDKIM than the committed ratio says. Run by .ci/run; a minute.

    uv run python bench/guard.py [--write]

A ratio of two programs that take turns on one machine; absolute rates of two machines say nothing about each other. Below LEAST of the committed
ratio it exits with 1. Without postfix and opendkim there is nothing to compare with: it says so and exits with 0. `--write` commits to a new ratio.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

from run import REFERENCE, measure

FILE = pathlib.Path(__file__).parent / "results" / "guard.json"
LEAST = 0.7
NEEDED = ("postfix", "smtp-source", "smtp-sink", "opendkim", "saslpasswd2")


def ratio() -> float:
    """Postroom's rate over that of the reference, medians of three runs of 4 KB messages."""
    arguments = argparse.Namespace(cases=["4k"], contenders=["sqlite", "postfix"], messages=600, runs=3, sink_port=2596, syncs=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        results, _ = asyncio.run(measure(arguments, pathlib.Path(folder)))
    rates = {name: statistics.median(result.rates) for (name, _), result in results.items()}
    return rates["Postroom (SQLite)"] / rates[REFERENCE]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="measure and commit to the result")
    write = parser.parse_args().write
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        print(f"guard: skipped, it needs root and {', '.join(NEEDED)}; missing: {', '.join(missing) or 'root'}")
        return 0
    found = ratio()
    if write:
        FILE.write_text(json.dumps({"ratio": round(found, 2)}) + "\n")
        print(f"guard: the ratio is now {found:.2f}")
        return 0
    committed = json.loads(FILE.read_text())["ratio"]
    print(f"guard: {found:.2f} times Postfix + OpenDKIM; committed are {committed:.2f}, the least is {LEAST * committed:.2f}")
    return 0 if found >= LEAST * committed else 1


if __name__ == "__main__":
    sys.exit(main())
