"""PostgreSQL: duties and webhooks, a part of PostgresSpool."""

from typing import Protocol

from postroom_delivery.spool import statements
from postroom_delivery.spool.hooks import MOST_BACKLOG, PAGE, HookEvent, HookState
from postroom_delivery.spool.postgres_link import Link, Transaction

SQL = statements.load("postgres_hooks.sql")


class _Engine(Protocol):
    """What this part needs of the spool."""

    holder: str
    _link: Link


class PostgresHooks:
    """See postroom_delivery.spool.interface.Hooks. A duty's end is of the database's clock."""

    async def hold_duty(self: _Engine, now: int, name: str, lasts_ms: int) -> bool:
        async def work(transaction: Transaction) -> bool:
            return bool(await transaction.connection.fetch(SQL["hold_duty"], name, self.holder, transaction.now, lasts_ms))

        return await self._link.run(now, work)

    async def hook(self: _Engine, name: str) -> HookState:
        async def work(transaction: Transaction) -> HookState:
            await transaction.connection.execute(SQL["new_hook"], name)
            return HookState(*await transaction.connection.fetchrow(SQL["hook"], name))

        return await self._link.run(0, work)

    async def hooks(self: _Engine) -> list[HookState]:
        return [HookState(*row) for row in await self._link.read(lambda c: c.fetch(SQL["hooks"]))]

    async def hook_events(self: _Engine, after: int) -> list[HookEvent]:
        return [HookEvent(*row) for row in await self._link.read(lambda c: c.fetch(SQL["hook_events"], after, PAGE))]

    async def move_hook(self: _Engine, duty: str, state: HookState) -> bool:
        async def work(transaction: Transaction) -> bool:
            if not await transaction.connection.fetch(SQL["has_duty"], duty, self.holder):
                return False
            await transaction.connection.execute(SQL["move_hook"], *state.columns())
            return True

        return await self._link.run(0, work)

    async def hook_backlog(self: _Engine, after: int, domain: str) -> list[tuple[str, int, int]]:
        rows = await self._link.read(lambda c: c.fetch(SQL["hook_backlog"], after, domain, MOST_BACKLOG))
        return [(row["kind"], row["count"], row["at"]) for row in rows]
