"""Checking passwords: dear by design, so never dearer than needed."""

import asyncio

import pytest

from postroom_core.documents import ScryptVerifier
from postroom_core.testing.clock import FakeClock
from postroom_ingress import passwords
from postroom_ingress.passwords import PARALLEL, Passwords
from postroom_operator.verifiers import derive

VERIFIER = derive("right")


def test_connections_that_log_in_at_once_share_the_first_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    fits = passwords._fits

    def counted(verifier: ScryptVerifier, password: str) -> bool:
        checked.append(password)
        return fits(verifier, password)

    monkeypatch.setattr(passwords, "_fits", counted)

    async def scenario() -> None:
        checking = Passwords(FakeClock())
        assert all(await asyncio.gather(*(checking.right([VERIFIER], "right", lambda: True) for _ in range(20))))
        assert len(checked) <= PARALLEL
        assert not any(await asyncio.gather(*(checking.right([VERIFIER], "wrong", lambda: True) for _ in range(3))))
        assert len(checked) <= PARALLEL + 3

    asyncio.run(scenario())
