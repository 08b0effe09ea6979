"""Group commit for PostgreSQL: callers that wait at the same time share a transaction and its statements.

While one group commits, the next gathers, so nobody waits for companions. If a group fails because of what one of its callers asked, every
caller's request runs in a transaction of its own, so that only the guilty one fails.
"""

import asyncio
import collections
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from postroom_core.errors import Unavailable
from postroom_delivery.spool.postgres_link import Away

A = TypeVar("A")
R = TypeVar("R")
# Bounds the time that one group takes, and with it the wait of the last caller in it.
GROUP = 256


class Group(Generic[A, R]):
    """`work` runs requests in one transaction and gives one result for each, in order."""

    def __init__(self, work: Callable[[Sequence[A]], Awaitable[Sequence[R]]]) -> None:
        self._work = work
        self._waiting: collections.deque[tuple[A, asyncio.Future[R]]] = collections.deque()
        self._pump: asyncio.Task[None] | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"Group(waiting={len(self._waiting)})"

    async def submit(self, request: A) -> R:
        """The result after the commit. Raises what the request raised."""
        if self._closing:
            raise Unavailable("the spool is closing")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Waits for what was submitted."""
        self._closing = True
        if self._pump is not None:
            await self._pump

    async def _run(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
            results = await self._commit([request for request, _ in group])
            for (_, future), result in zip(group, results, strict=True):
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _commit(self, requests: list[A]) -> list[R | Exception]:
        try:
            return list(await self._work(requests))
        except Away as error:
            return [error] * len(requests)
        except Exception as error:  # handed to the caller below, never swallowed
            if len(requests) == 1:
                return [error]
        return [result for request in requests for result in await self._commit([request])]
