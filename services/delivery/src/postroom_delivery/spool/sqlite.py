"""The SQLite engine: one machine, one process. WAL with synchronous=FULL: a commit is on the disk when it returns.

Writes go through one thread with group commit (writer.py); reads have a connection and a thread of their own and see the last commit. The
process holds an exclusive lock on the spool, so whatever an earlier one had leased is free at the start.
"""

import asyncio
import contextlib
import fcntl
import os
import pathlib
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from postroom_core.errors import Permanent, Unavailable
from postroom_core.reply import Reply
from postroom_delivery.spool import rollup, sqlite_accept, sqlite_claim, sqlite_read, sqlite_rollup, sqlite_settle, sqlite_suppression, sqlite_tls
from postroom_delivery.spool.interface import LEASE_MS, LimitsOf
from postroom_delivery.spool.model import (
    Backlog,
    Batch,
    Claim,
    DeadLetter,
    EventDetail,
    EventRow,
    Key,
    ListFilter,
    MessageRow,
    NewMessage,
    Notice,
    RecipientRow,
    Settlement,
    Stats,
    Suppression,
    SuppressionFilter,
    makes_work,
)
from postroom_delivery.spool.sqlite_accept import SQL
from postroom_delivery.spool.sqlite_curbs import SqliteCurbs
from postroom_delivery.spool.sqlite_hooks import SqliteHooks
from postroom_delivery.spool.sqlite_migrate import migrate
from postroom_delivery.spool.tls_tally import TlsCount, TlsSession
from postroom_delivery.spool.writer import Writer

log = structlog.get_logger(__name__)
T = TypeVar("T")
# Chunks are at most 64 KiB: one read brings at most 256 KiB into memory.
READ_CHUNKS = 4
SWEEP = 500
# Below this the volume is as good as full.
LEAST_FREE = 64 * 1024 * 1024


class SqliteSpool(SqliteHooks, SqliteCurbs):
    """See postroom_delivery.spool.interface.Spool."""

    def __init__(self, writer: Writer, path: pathlib.Path, holder: str, limits_of: LimitsOf, lease_ms: int) -> None:
        self.name = str(path)
        self.lease_ms = lease_ms
        self._folder = path.parent
        self._writer = writer
        self._holder = holder
        self._limits_of = limits_of
        self._renewed_at = float("-inf")
        self._reader = _connection(path)
        self._reader.execute("PRAGMA query_only = 1")
        self._read_thread = ThreadPoolExecutor(1, "spool-reader")
        self.changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"SqliteSpool(holder={self._holder!r}, {self._writer!r})"

    async def _write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """For what may make work due. Other writes must not set `changed`: a claim that wakes the claiming loop makes it spin."""
        result = await self._writer.submit(operation)
        self.changed.set()
        return result

    async def _submit(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """For everything else."""
        return await self._writer.submit(operation)

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._read_thread, operation, self._reader)
        except sqlite3.Error as error:
            raise Unavailable(f"spool: {error}") from error

    def fault(self) -> str:
        """A broken disk shows at the next commit, not here."""
        return ""

    def has_room(self) -> bool:
        return shutil.disk_usage(self._folder).free >= LEAST_FREE

    # Accepting

    async def stage(self, message_id: str, sequence: int, chunk: bytes) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["staging_goes_on"], (message_id,))
            connection.execute(SQL["insert_body"], (message_id, sequence, chunk))

        await self._writer.submit(operation)

    async def discard(self, message_id: str) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            for statement in ("delete_staged_body", "staging_ends"):
                connection.execute(SQL[statement], (message_id,))

        await self._writer.submit(operation)

    async def accept(self, message: NewMessage, last_chunk: tuple[int, bytes]) -> Reply | None:
        return await self._write(lambda c: sqlite_accept.accept(c, message, last_chunk))

    # Delivering

    async def claim(self, now: int, room: int, idle: Collection[Key]) -> tuple[list[Batch], int | None]:
        return await self._writer.submit(
            lambda c: sqlite_claim.Claiming(c, now, self._holder, now + self.lease_ms, self._limits_of).claim(room, idle)
        )

    async def doubt(self, claims: Sequence[Claim]) -> None:
        await self._writer.submit(lambda c: sqlite_settle.doubt(c, self._holder, claims))

    async def settle(self, now: int, settlements: Sequence[Settlement], notices: Sequence[Notice], sessions: Sequence[TlsSession] = ()) -> None:
        def work(connection: sqlite3.Connection) -> None:
            sqlite_settle.settle(connection, now, self._holder, settlements, notices)
            sqlite_tls.add(connection, now, self._holder, sessions)

        await self._writer.submit(work)
        if makes_work(settlements, notices):
            self.changed.set()

    async def release_slot(self, now: int, batch: Batch, blocked_until: int) -> None:
        await self._write(lambda c: sqlite_settle.release_slot(c, now, batch.slot, batch.key, blocked_until))

    async def throttle(self, now: int, key: Key) -> None:
        await self._writer.submit(lambda c: sqlite_settle.throttle(c, now, key))

    async def renew(self, now: int) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            for statement in ("renew_recipients", "renew_slots"):
                connection.execute(SQL[statement], (now + self.lease_ms, self._holder))

        await self._writer.submit(operation)
        self._renewed_at = time.monotonic()

    async def give_back(self, now: int, claims: Sequence[Claim], due_at: int) -> int:
        return await self._write(lambda c: sqlite_claim.give_back(c, now, self._holder, claims, due_at))

    async def recover(self, now: int) -> int:
        """Leases are all of this process: while it renews them in time none has ended, whatever the wall clock says."""
        if back := await self._write(lambda c: sqlite_claim.follow_clock(c, now, now + self.lease_ms)):
            log.warning("the clock has gone back; what waits was moved with it", seconds=back // 1000)
        if time.monotonic() - self._renewed_at < self.lease_ms / 1000:
            return 0
        return await self._write(lambda c: sqlite_claim.recover(c, now, now))

    async def body(self, message_id: str) -> AsyncIterator[bytes]:
        sequence = 0
        while rows := await self._read(_body_reader(message_id, sequence)):
            for (chunk,) in rows:
                yield chunk
            if len(rows) < READ_CHUNKS:
                return
            sequence += len(rows)

    # Memory

    async def recall(self, now: int, kind: str, name: str) -> str | None:
        row = await self._read(lambda c: c.execute(SQL["recall"], (kind, name, now)).fetchone())
        return str(row[0]) if row is not None else None

    async def remember(self, now: int, kind: str, name: str, value: str, until: int) -> None:
        await self._writer.submit(lambda c: c.execute(SQL["remember"], (kind, name, value, until)) and None)

    async def agree(self, now: int, kind: str, name: str, value: str, until: int) -> str:
        return await self._writer.submit(lambda c: str(c.execute(SQL["agree"], (kind, name, value, until, now)).fetchone()[0]))

    # People

    async def list_messages(self, which: ListFilter) -> list[MessageRow]:
        return await self._read(lambda c: sqlite_read.list_messages(c, which))

    async def show(self, message_id: str) -> MessageRow | None:
        return await self._read(lambda c: sqlite_read.show(c, message_id))

    async def events(self, message_id: str, after: int, limit: int) -> list[EventRow]:
        return await self._read(lambda c: sqlite_read.events(c, message_id, after, limit))

    async def dead_letters(self, before: DeadLetter | None, limit: int) -> list[DeadLetter]:
        return await self._read(lambda c: sqlite_read.dead_letters(c, before, limit))

    async def stats(self, now: int) -> Stats:
        return await self._read(lambda c: sqlite_read.stats(c, now))

    async def backlog(self, now: int) -> Backlog:
        return await self._read(lambda c: sqlite_read.backlog(c, now, self._limits_of))

    async def reschedule(self, now: int, action: str, recipients: Sequence[RecipientRow]) -> int:
        return await self._write(lambda c: sqlite_settle.reschedule(c, now, action, recipients))

    async def end(
        self,
        now: int,
        recipients: Sequence[RecipientRow],
        settlement: Callable[[Claim], Settlement],
        notices: Sequence[Notice],
    ) -> int:
        return await self._write(lambda c: sqlite_settle.end(c, now, recipients, settlement, notices))

    async def suspend(self, now: int, key: Key, suspended: bool) -> int:
        return await self._write(lambda c: sqlite_settle.suspend(c, key, suspended))

    async def suspend_tenant(self, now: int, tenant: str, suspended: bool) -> int:
        return await self._write(lambda c: sqlite_settle.suspend_tenant(c, tenant, suspended))

    async def tell(self, now: int, message_id: str, address: str, event: EventDetail, entries: Sequence[Suppression]) -> int:
        def work(connection: sqlite3.Connection) -> int:
            sqlite_accept.insert_event(connection, now, message_id, address, 0, event)
            return sqlite_suppression.suppress(connection, entries)

        return await self._write(work)

    async def suppress(self, entries: Sequence[Suppression]) -> int:
        return await self._write(lambda c: sqlite_suppression.suppress(c, entries))

    async def unsuppress(self, entries: Sequence[Suppression]) -> int:
        return await self._write(lambda c: sqlite_suppression.unsuppress(c, entries))

    async def suppressions(self, which: SuppressionFilter) -> list[Suppression]:
        return await self._read(lambda c: sqlite_suppression.suppressions(c, which))

    async def suppressed(self, now: int, tenant: str, domain: str, addresses: Sequence[str]) -> dict[str, Suppression]:
        return await self._read(lambda c: sqlite_suppression.suppressed(c, now, tenant, domain, addresses))

    async def sweep(self, before: int) -> int:
        return await self._writer.submit(lambda c: sqlite_settle.sweep(c, before, SWEEP))

    # Results of TLS

    async def tls_domains(self, day: int, after: str, limit: int) -> list[str]:
        return await self._read(lambda c: sqlite_tls.domains(c, day, after, limit))

    async def tls_counts(self, day: int, domain: str) -> list[TlsCount]:
        return await self._read(lambda c: sqlite_tls.counts(c, day, domain))

    async def forget_tls(self, day: int, domain: str = "") -> None:
        await self._writer.submit(lambda c: sqlite_tls.forget(c, day, domain))

    # Analytics

    async def roll_up(self) -> int:
        def read(connection: sqlite3.Connection) -> tuple[int, int, int, Counter[rollup.Fact]]:
            cursor, found = sqlite_rollup.unseen(connection)
            return cursor, found[-1].number if found else cursor, len(found), rollup.fold(found)

        cursor, last, count, facts = await self._read(read)
        if not count:
            return 0
        return count if await self._writer.submit(lambda c: sqlite_rollup.add(c, cursor, last, facts)) else 0

    async def facts(self, span: tuple[int, int, int], by: tuple[str, ...], where: Mapping[str, str]) -> list[tuple[tuple[str, ...], str, int, int]]:
        return await self._read(lambda c: sqlite_rollup.ask(c, span, by, where))

    async def forget_facts(self, now: int) -> None:
        await self._writer.submit(lambda c: sqlite_rollup.forget(c, now))

    async def close(self) -> None:
        """Waits for what was submitted. The reader last: a running read must end first."""
        await self._writer.close()
        self._read_thread.shutdown(wait=True)
        self._reader.close()


def _body_reader(message_id: str, sequence: int) -> Callable[[sqlite3.Connection], list[tuple[bytes]]]:
    return lambda connection: connection.execute(SQL["read_body"], (message_id, sequence, READ_CHUNKS)).fetchall()


def _connection(path: pathlib.Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """The spool for this process alone. Raises Permanent when another has it or the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files the same mode
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Permanent(f"the spool {path} cannot be opened: {error.strerror}; choose a folder that can be written") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Permanent(f"the spool {path} is in use by another process; stop it or use another spool") from error
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def open_sqlite(path: pathlib.Path, holder: str, now: int, limits_of: LimitsOf, lease_ms: int = LEASE_MS) -> AsyncIterator[SqliteSpool]:
    """Opens, migrates and recovers the spool. Raises Permanent with one sentence when it cannot be used as it is."""
    with _locked(path):
        try:
            connection = _connection(path)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 4000", "cache_size = -65536", "temp_store = MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection, str(path))
            connection.execute("BEGIN IMMEDIATE")
            for statement in ("delete_orphans", "no_stagings", "delete_empty_tally", "delete_duties"):
                connection.execute(SQL[statement])
            sqlite_claim.recover(connection, now, sqlite_accept.NEVER)
            sqlite_claim.follow_clock(connection, now, now)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise Permanent(f"the spool {path} cannot be used: {error}") from error
        writer = Writer(connection)
        spool = SqliteSpool(writer, path, holder, limits_of, lease_ms)
        try:
            yield spool
        finally:
            await spool.close()
            connection.close()
