"""SQLite: duties and webhooks, a part of SqliteSpool."""

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

from postroom_delivery.spool import statements
from postroom_delivery.spool.hooks import MOST_BACKLOG, PAGE, HookEvent, HookState

SQL = statements.load("sqlite_hooks.sql")
T = TypeVar("T")


class _Engine(Protocol):
    """What this part needs of the spool."""

    _holder: str

    async def _submit(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...


class SqliteHooks:
    """See postroom_delivery.spool.interface.Hooks."""

    async def hold_duty(self: _Engine, now: int, name: str, lasts_ms: int) -> bool:
        return await self._submit(lambda c: c.execute(SQL["hold_duty"], (name, self._holder, now, lasts_ms)).rowcount > 0)

    async def hook(self: _Engine, name: str) -> HookState:
        def work(connection: sqlite3.Connection) -> HookState:
            connection.execute(SQL["new_hook"], (name,))
            return HookState(*connection.execute(SQL["hook"], (name,)).fetchone())

        return await self._submit(work)

    async def hooks(self: _Engine) -> list[HookState]:
        return await self._read(lambda c: [HookState(*row) for row in c.execute(SQL["hooks"])])

    async def hook_events(self: _Engine, after: int) -> list[HookEvent]:
        return await self._read(lambda c: [HookEvent(*row) for row in c.execute(SQL["hook_events"], (after, PAGE))])

    async def move_hook(self: _Engine, duty: str, state: HookState) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL["has_duty"], (duty, self._holder)).fetchone() is None:
                return False
            connection.execute(SQL["move_hook"], state.columns())
            return True

        return await self._submit(work)

    async def hook_backlog(self: _Engine, after: int, domain: str) -> list[tuple[str, int, int]]:
        return await self._read(lambda c: c.execute(SQL["hook_backlog"], (after, domain, MOST_BACKLOG)).fetchall())
