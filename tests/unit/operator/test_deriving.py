"""Deriving verifiers is dear in memory: previous passwords wait for their turn as current ones do."""

import asyncio
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
