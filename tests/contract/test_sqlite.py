"""What only the SQLite engine promises."""

import asyncio
import pathlib

import pytest

from postroom_core.errors import Permanent
from postroom_delivery.spool.model import Limits
from postroom_delivery.spool.opening import open_spool


def test_a_sqlite_spool_in_use_is_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        url = f"sqlite://{tmp_path}/spool.sqlite3"
        async with open_spool(lambda: url, "me", 0, lambda key: Limits(1, None, 1)):
            with pytest.raises(Permanent, match="in use"):
                async with open_spool(lambda: url, "me", 0, lambda key: Limits(1, None, 1)):
                    pass

    asyncio.run(scenario())
