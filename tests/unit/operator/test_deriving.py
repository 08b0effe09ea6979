"""Deriving verifiers is dear in memory: previous passwords wait for their turn as current ones do."""

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from postroom_operator import verifiers
from postroom_operator.reconcile import credentials
from postroom_operator.reconcile.hardwork import WORKERS


def test_previous_passwords_are_derived_within_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, running, most = threading.Lock(), [0], [0]
    known = verifiers.derive("now")

    def counted(password: str, salt: bytes | None = None) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)  # as a derivation does: long enough for all threads to meet
        with lock:
            running[0] -= 1
        return known

    monkeypatch.setattr(verifiers, "derive", counted)

    async def scenario() -> None:
        await asyncio.gather(*(credentials._given({"previousPassword": "before"}, known) for _ in range(8)))

    asyncio.run(scenario())
    assert most[0] == WORKERS


MEASURE = """
import asyncio, pathlib
from postroom_operator import verifiers
from postroom_operator.reconcile import hardwork

def resident() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

async def scenario() -> None:
    await hardwork.done(lambda: None)
    before = resident()
    await asyncio.gather(*(hardwork.done(lambda: verifiers.derive("x")) for _ in range(8)))
    print(resident() - before)

asyncio.run(scenario())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and it is glibc that keeps blocks")
def test_what_a_derivation_takes_it_gives_back() -> None:
    grown = int(subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True, timeout=60).stdout)
    assert grown < 8 << 20  # one derivation takes 16 MiB
