"""What holds for every test: hypothesis judges invariants, not how busy the machine is; one PostgreSQL serves all."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from contract import postgres

hypothesis.settings.register_profile("postroom", deadline=None)
hypothesis.settings.load_profile("postroom")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """One PostgreSQL for the whole run; every test takes a database of its own and leaves the server running."""
    yield from postgres.serving()
