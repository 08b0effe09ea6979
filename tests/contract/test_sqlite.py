"""What only the SQLite engine promises."""

import asyncio
import contextlib
import pathlib
import sqlite3

import pytest

from postroom_core.errors import Permanent
from postroom_delivery.spool import sqlite_migrate
from postroom_delivery.spool.model import Limits
from postroom_delivery.spool.opening import open_spool

from contract.test_spool import message


def test_a_sqlite_spool_in_use_is_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        url = f"sqlite://{tmp_path}/spool.sqlite3"
        async with open_spool(lambda: url, "me", 0, lambda key: Limits(1, None, 1)):
            with pytest.raises(Permanent, match="in use"):
                async with open_spool(lambda: url, "me", 0, lambda key: Limits(1, None, 1)):
                    pass

    asyncio.run(scenario())


def test_chunks_whose_accept_never_came_are_gone_after_a_crash_and_bodies_are_not(tmp_path: pathlib.Path) -> None:
    url = f"sqlite://{tmp_path}/spool.sqlite3"

    async def scenario(after_crash: bool) -> None:
        async with open_spool(lambda: url, "me", 0, lambda key: Limits(1, None, 1)) as spool:
            if not after_crash:
                await spool.stage("m1", 0, b"bo")
                await spool.accept(message("m1"), (1, b"dy"))
                await spool.stage("m2", 0, b"never ends")
            assert [chunk async for chunk in spool.body("m1")] == [b"bo", b"dy"]
            assert [chunk async for chunk in spool.body("m2")] == ([] if after_crash else [b"never ends"])

    for after_crash in (False, True):
        asyncio.run(scenario(after_crash))


def test_a_spool_of_before_the_counts_is_counted_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spool.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number, sql in sqlite_migrate.steps():
            if number < 9:
                connection.executescript(f"{sql}\nPRAGMA user_version = {number};")
        columns = "message, address, domain, pool, destination, tenant, state, due_at, notify, orcpt"
        row = f"INSERT INTO recipient ({columns}) VALUES ('m', 'a', 'd', 'p', ?, 't', ?, 0, '', '')"
        connection.executemany(row, [("x", "scheduled"), ("x", "scheduled"), ("y", "held"), ("x", "delivered")])
        connection.execute("INSERT INTO destination (pool, name, next_at) VALUES ('p', 'x', 1)")

    async def scenario() -> None:
        async with open_spool(lambda: f"sqlite://{path}", "me", 0, lambda key: Limits(1, None, 1)) as spool:
            stats = await spool.stats(0)
            assert stats.recipients == {"scheduled": 2, "held": 1, "delivered": 1}
            assert [(row.destination, row.scheduled) for row in stats.destinations] == [("x", 2)]

    asyncio.run(scenario())
