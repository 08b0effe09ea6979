"""PostgreSQL: connections, transactions, errors. Knows nothing about mail.

A transaction that deadlocks or cannot be serialised runs again, a few times. Everything that means "the database cannot be used now" becomes
Away: connections lost or refused, a failover, too many connections, a full disk. The pool connects anew by itself, so nothing needs a restart.
Times are those of the database's clock, read once in CLOCK_SECONDS and carried on by the process's monotonic one.

Every statement is a round trip of some 100 µs of CPU on each side, so what a transaction says beside its work is kept to BEGIN and COMMIT.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg

from postroom_core.errors import Unavailable
from postroom_delivery.spool import statements
from postroom_delivery.spool.model import EventDetail
from postroom_delivery.spool.postgres_migrate import LOCK

_FILES = ("postgres.sql", "postgres_tls.sql", "postgres_tenants.sql", "postgres_clock.sql")
SQL = {name: text for file in _FILES for name, text in statements.load(file).items()}
T = TypeVar("T")
Connection = Any  # asyncpg.Connection or the pool's proxy of it, which are not related by type

# Four groups, a claim, housekeeping and two readers work at one time. A server's default of 100 connections then takes ten processes.
MOST_CONNECTIONS = 8
# A healthy database answers in milliseconds; a failover takes some seconds. Beyond this the caller hears Unavailable.
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 30.0
# For so long the clocks of two machines do not drift apart by what a lease or a rate could notice; a step of the database's clock is seen after it.
CLOCK_SECONDS = 1.0
# Deadlocks are rare and the loser's work is short: a fourth time in a row means something else.
MOST_RUNS = 4
DAY_MS = 86_400_000
_SETTINGS = {
    "application_name": "postroom-delivery",
    # A process that was stopped in the middle of a transaction must not hold its locks: the server ends the transaction, the fence does the rest.
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    # Every statement has an index made for it; a plan must not change with statistics that lag behind a growing queue.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "synchronous_commit": "on",
    "client_min_messages": "error",
}
_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_LOST = (asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, OSError, TimeoutError)
_AWAY = (*_LOST, asyncpg.InsufficientResourcesError, asyncpg.ReadOnlySQLTransactionError, asyncpg.LockNotAvailableError, asyncpg.PostgresSystemError)


class Away(Unavailable):
    """The database cannot be used now; nothing is wrong with what was asked."""


class Lost(Away):
    """The connection was lost, maybe after the commit and before its answer."""


@dataclass
class Transaction:
    """What one transaction does: statements at once, events and arrivals at its end, so that each needs one statement."""

    connection: Connection
    now: int
    events: list[tuple[Any, ...]] = field(default_factory=list)
    arrivals: dict[tuple[str, str, str, bool], int] = field(default_factory=dict)

    async def fetch(self, name: str, *values: Any) -> list[Any]:
        """The rows of a named statement."""
        return list(await self.connection.fetch(SQL[name], *values))

    async def many(self, name: str, rows: list[tuple[Any, ...]], *first: Any) -> list[Any]:
        """A named statement that takes its rows as one array per column, after `first`. Nothing for no rows."""
        return await self.fetch(name, *first, *map(list, zip(*rows, strict=True))) if rows else []

    def event(self, message: str, recipient: str, attempt: int, event: EventDetail) -> None:
        """Appends one event row."""
        reply = event.reply
        code, enhanced, text = (reply.code, reply.enhanced, reply.text) if reply else (0, "", event.text)
        detail = (event.kind, code, clean(enhanced), clean(text), event.classification, clean(event.remote), event.tls, attempt)
        self.events.append((message, recipient, *detail))

    def wake(self, pool: str, destination: str, tenant: str, due: int, *, unblock: bool = False) -> None:
        """Tells claims that there is work at `due`."""
        key = (pool, destination, tenant, unblock)
        self.arrivals[key] = min(due, self.arrivals.get(key, due))

    async def flush(self) -> None:
        """Writes what was gathered."""
        await self.many("insert_events", self.events, self.now)
        await self.many("insert_arrivals", [(pool, name, tenant, due, unblock) for (pool, name, tenant, unblock), due in self.arrivals.items()])


def clean(text: str) -> str:
    """Text of strangers as PostgreSQL can hold it: no NUL, no lone surrogate."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class Link:
    """Runs transactions. `caller_clock` takes the caller's time instead of the database's: for tests with a virtual clock."""

    def __init__(self, pool: Any, *, caller_clock: bool) -> None:
        self._pool = pool
        self.caller_clock = caller_clock
        self._days: set[int] = set()
        self._clock_read: tuple[float, int] | None = None  # the loop's time, and the database's in milliseconds at that moment
        self.fault = ""
        self.restored_at = -1e9  # the loop's time when the database came back after it had been away

    async def run(self, now: int, work: Callable[[Transaction], Awaitable[T]], *, lazy: bool = False) -> T:
        """The result of `work` after its commit. Raises Away, Unavailable for any other fault of the database, and what `work` raises.

        `lazy` commits do not wait for the disk. They are for what may be forgotten by a crash of the server as long as nothing later is
        remembered: a claim is worthless until its doubt is on the disk, and that write brings the claim's along.
        """
        return await self._run(lambda: self._once(now, work, lazy=lazy))

    async def alone(self, name: str, rows: list[tuple[Any, ...]], *first: Any) -> list[Any]:
        """Transaction.many as a transaction of its own, without BEGIN, COMMIT and a look at the clock. Raises as `run`."""

        async def once() -> list[Any]:
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                return await Transaction(connection, 0).many(name, rows, *first)

        return await self._run(once)

    async def _run(self, once: Callable[[], Awaitable[T]]) -> T:
        for run in range(1, MOST_RUNS + 1):
            try:
                with self._translated():
                    return await once()
            except _AGAIN as error:
                if run == MOST_RUNS:
                    raise Unavailable(f"spool: {error}") from error
        raise AssertionError

    async def _once(self, now: int, work: Callable[[Transaction], Awaitable[T]], *, lazy: bool) -> T:
        async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
            await self._day_exists(connection, await self.now(connection, now))
            async with connection.transaction():
                transaction = Transaction(connection, await self.now(connection, now))
                if lazy:
                    await connection.execute("SET LOCAL synchronous_commit = off")
                result = await work(transaction)
                await transaction.flush()
            return result

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of `work`, which only reads. Raises Away, Unavailable."""
        with self._translated():
            try:
                async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                    return await work(connection)
            except _AGAIN as error:
                raise Unavailable(f"spool: {error}") from error

    async def now(self, connection: Connection, now: int) -> int:
        """The database's time; the caller's under its clock."""
        if self.caller_clock:
            return now
        loop = asyncio.get_running_loop()
        if self._clock_read is None or loop.time() - self._clock_read[0] > CLOCK_SECONDS:
            self._clock_read = None  # stays so when the database does not answer: the next one may be another
            told = int(await connection.fetchval(SQL["now"]))
            self._clock_read = (loop.time(), told)
        at, told = self._clock_read
        return told + int((loop.time() - at) * 1000)

    async def _day_exists(self, connection: Connection, now: int) -> None:
        """The events' partition of today, and of tomorrow ahead of time, under a lock because every process finds them missing at once."""
        today = now // DAY_MS
        for day in (today, today + 1):
            if day not in self._days:
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1, 1)", LOCK)
                    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"event_{day}"):
                        await connection.execute(f"CREATE TABLE event_{day} (LIKE event INCLUDING ALL)")
                        bounds = f"FROM ({day * DAY_MS}) TO ({(day + 1) * DAY_MS})"
                        await connection.execute(f"ALTER TABLE event ATTACH PARTITION event_{day} FOR VALUES {bounds}")
                self._days.add(day)

    @contextlib.contextmanager
    def _translated(self) -> Any:
        try:
            yield
        except _AGAIN:
            raise
        except _AWAY as error:
            self._clock_read = None
            self.fault = _told(error)
            raise (Lost if isinstance(error, _LOST) else Away)(self.fault) from error
        except asyncpg.PostgresError as error:
            raise Unavailable(f"spool: {error}") from error
        if self.fault:
            self.fault = ""
            self.restored_at = asyncio.get_running_loop().time()


def _told(error: BaseException) -> str:
    if isinstance(error, asyncpg.DiskFullError):
        return "spool: the database's disk is full"
    if isinstance(error, TimeoutError):
        return "spool: the database did not answer in time"
    return f"spool: the database cannot be used now: {error or type(error).__name__}"


@contextlib.asynccontextmanager
async def connect(url: Callable[[], str]) -> AsyncIterator[Any]:
    """A pool of connections; none is open yet. `url` is asked for each."""

    async def one(*_: Any, **options: Any) -> Any:
        return await asyncpg.connect(url(), **options)

    async def keep(_: Any) -> None:
        """Nothing to reset: no session has settings, cursors, listeners or locks of its own. An open transaction asyncpg ends by itself."""

    pool = asyncpg.create_pool(
        connect=one,
        reset=keep,
        min_size=0,
        max_size=MOST_CONNECTIONS,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        server_settings=_SETTINGS,
    )
    await pool
    try:
        yield pool
    finally:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await pool.close()
        except (TimeoutError, asyncpg.PostgresError, OSError):
            pool.terminate()
