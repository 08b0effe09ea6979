"""The benches of a long queue and of fairness in a small form: what grows with the queue shows already here. Full figures: bench/README.md.

The bounds are wider than the goals, because a machine that also does other work must not fail them.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

BENCH = pathlib.Path(__file__).parents[3] / "bench"
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(400)]


def bench(program: str, results: pathlib.Path, *arguments: str) -> Any:
    """Its results; what it printed when it failed."""
    command = [sys.executable, str(BENCH / program), "--results", str(results), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390)
    assert results.exists(), done.stdout + done.stderr
    print(done.stdout)
    return json.loads(results.read_text())


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_hundred_thousand_due_messages_are_claimed_at_once_and_slow_nothing(engine: str, tmp_path: pathlib.Path) -> None:
    short, long = (bench("long_queue.py", tmp_path / rows, "--engine", engine, "--rows", rows, "--seconds", "8") for rows in ("1000", "100000"))
    assert long["figures"]["first delivery after, s"] < 3 * short["figures"]["first delivery after, s"] + 5
    assert long["figures"]["memory, MiB"] < 300 and long["figures"]["memory with questions, MiB"] < 300
    assert long["figures"]["delivered a second"] > 0.6 * short["figures"]["delivered a second"]
    slow = {name: seconds for name, seconds in long["seconds"].items() if seconds > 3}
    assert not slow


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("scenario", ["dead", "tarpit", "tenant"])
def test_a_dead_domain_a_tarpit_and_a_noisy_tenant_leave_the_others_their_rate(engine: str, scenario: str, tmp_path: pathlib.Path) -> None:
    found = bench("fairness.py", tmp_path / "found", "--engine", engine, "--scenario", scenario, "--rows", "20000", "--seconds", "8")
    assert found["kept"] >= 0.8
    assert found["disturbed"]["p95, s"] < 10


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_the_others_keep_their_rate_where_a_noisy_tenant_wants_every_connection(engine: str, tmp_path: pathlib.Path) -> None:
    """In virtual time: it holds or fails on every machine."""
    found = bench("fairness.py", tmp_path / "found", "--engine", engine, "--virtual", "--seconds", "20")
    assert found["kept"] >= 0.8
    assert found["disturbed"]["disturber a second"] > 0
