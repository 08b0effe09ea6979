"""One running Postroom for all foreign clients of a test session: starting it costs more than most of them."""

from collections.abc import Iterator

import pytest

from integration.clients.postroom import Postroom
from integration.path.running import machine


@pytest.fixture(scope="session")
def postroom() -> Iterator[Postroom]:
    with machine() as running:
        yield Postroom(running)
