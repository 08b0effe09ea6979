"""PostgreSQL: curbs on senders, a part of PostgresSpool."""

from typing import Protocol

from postroom_delivery.spool import statements
from postroom_delivery.spool.curbs import Curb
from postroom_delivery.spool.model import EventDetail
from postroom_delivery.spool.postgres_link import Link, Transaction

SQL = statements.load("postgres_curbs.sql")


class _Engine(Protocol):
    """What this part needs of the spool."""

    _link: Link


class PostgresCurbs:
    """See postroom_delivery.spool.interface.Curbs."""

    async def curbs(self: _Engine) -> list[Curb]:
        return [Curb(*row) for row in await self._link.read(lambda c: c.fetch(SQL["curbs"]))]

    async def set_curb(self: _Engine, now: int, curb: Curb, event: EventDetail | None) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.connection.execute(SQL["set_curb"], *curb.columns())
            if event is not None:
                transaction.event("", curb.name, 0, event)

        await self._link.run(now, work)
