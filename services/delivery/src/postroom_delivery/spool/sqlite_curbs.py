"""SQLite: curbs on senders, a part of SqliteSpool."""

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

from postroom_delivery.spool import statements
from postroom_delivery.spool.curbs import Curb
from postroom_delivery.spool.model import EventDetail
from postroom_delivery.spool.sqlite_accept import insert_event

SQL = statements.load("sqlite_curbs.sql")
T = TypeVar("T")


class _Engine(Protocol):
    """What this part needs of the spool."""

    async def _submit(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...


class SqliteCurbs:
    """See postroom_delivery.spool.interface.Curbs."""

    async def curbs(self: _Engine) -> list[Curb]:
        return await self._read(lambda c: [Curb(*row) for row in c.execute(SQL["curbs"])])

    async def set_curb(self: _Engine, now: int, curb: Curb, event: EventDetail | None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["set_curb"], curb.columns())
            if event is not None:
                insert_event(connection, now, "", curb.name, 0, event)

        await self._submit(work)
