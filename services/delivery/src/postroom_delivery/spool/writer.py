"""Group commit for SQLite: one thread, one connection, many callers.

Callers submit operations; the thread takes all that are waiting, runs them in one transaction and commits once: while one commit waits for
the disk, the next group gathers, so nobody waits for companions and a busy spool syncs less than once per message. If one operation of a
group fails, the group is rolled back and every operation runs in a transaction of its own, so that only the guilty one fails; operations
must therefore have no effect but on the database.
"""

import asyncio
import collections
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from postroom_core.errors import Unavailable

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
# Bounds the time that one group holds the disk, and with it the wait of the last caller in it.
GROUP = 256


class Writer:
    """Owns the only writing connection. `submit` from the event loop; `close` waits for what was submitted."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[tuple[Operation, asyncio.Future[Any]]] = collections.deque()
        self._work = threading.Event()
        self._closing = False
        self.commits = 0
        self.operations = 0
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    async def submit(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """The operation's result after its commit. Raises what the operation raised, or Unavailable when the database cannot commit now."""
        if self._closing:
            raise Unavailable("the spool is closing")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((operation, future))
        self._work.set()
        return await future

    async def close(self) -> None:
        self._closing = True
        self._work.set()
        await asyncio.to_thread(self._thread.join)

    def __repr__(self) -> str:
        return f"Writer(waiting={len(self._waiting)}, commits={self.commits}, operations={self.operations})"

    # The thread

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            while group := [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]:
                self.operations += len(group)
                results = self._commit(group)
                self._loop.call_soon_threadsafe(_resolve, group, results)
            if self._closing and not self._waiting:
                return

    def _commit(self, group: list[tuple[Operation, asyncio.Future[Any]]]) -> list[Any]:
        try:
            return self._transaction([operation for operation, _ in group])
        except Exception as error:  # handed to the caller below, never swallowed
            if len(group) == 1:
                return [_translated(error)]
        return [result for pair in group for result in self._commit([pair])]

    def _transaction(self, operations: list[Operation]) -> list[Any]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            results = [operation(self._connection) for operation in operations]
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self.commits += 1
        return results


class _Failure(Exception):
    """Marks a result as an exception to raise."""


def _translated(error: Exception) -> _Failure:
    if isinstance(error, sqlite3.Error):
        return _Failure(Unavailable(f"spool: {error}"))
    return _Failure(error)


def _resolve(group: list[tuple[Operation, asyncio.Future[Any]]], results: list[Any]) -> None:
    for (_, future), result in zip(group, results, strict=True):
        if future.done():  # its caller was cancelled
            continue
        if isinstance(result, _Failure):
            future.set_exception(result.args[0])
        else:
            future.set_result(result)
