"""The PostgreSQL engine: many processes share one queue. Nothing of the queue is in a process, so that any of them may die at any moment.

What many callers do at once (accept, stage, doubt, settle) goes in groups, see postgres_group; claims are transactions of their own. A commit of
one process wakes the others by a notification, at most one in NOTIFY_SECONDS; lost ones cost nothing but time, because schedulers poll.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import structlog

from postroom_core.errors import Permanent, Unavailable
from postroom_core.lifecycle import supervised
from postroom_core.reply import Reply
from postroom_delivery.spool import (
    postgres_accept,
    postgres_claim,
    postgres_clock,
    postgres_read,
    postgres_rollup,
    postgres_settle,
    postgres_suppression,
    postgres_sweep,
    postgres_tls,
)
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
from postroom_delivery.spool.postgres_curbs import PostgresCurbs
from postroom_delivery.spool.postgres_group import Group
from postroom_delivery.spool.postgres_hooks import PostgresHooks
from postroom_delivery.spool.postgres_link import CONNECT_SECONDS, SQL, Connection, Link, Lost, Transaction, connect
from postroom_delivery.spool.postgres_migrate import migrate
from postroom_delivery.spool.postgres_notify import listening
from postroom_delivery.spool.tls_tally import TlsCount, TlsSession

log = structlog.get_logger(__name__)
# Chunks are at most 64 KiB: one read brings at most 256 KiB into memory.
READ_CHUNKS = 4
# A database that is being made or moved has this long at the start; then the process ends, and who started it starts it again.
START_SECONDS = 60.0
# A commit whose answer was lost may have happened: the same id is asked once more after this long, and a commit that did happen is found.
AGAIN_SECONDS = 1.0


class PostgresSpool(PostgresHooks, PostgresCurbs):
    """See postroom_delivery.spool.interface.Spool."""

    def __init__(self, link: Link, name: str, holder: str, limits_of: LimitsOf, lease_ms: int) -> None:
        self.name = name
        self.lease_ms = lease_ms
        self.changed = asyncio.Event()
        self.news = asyncio.Event()
        self.holder = holder
        self._link = link
        self._limits_of = limits_of
        self._watch = None if link.caller_clock else postgres_clock.Watch()
        self._stages: Group[tuple[str, int, bytes], None] = Group(self._stage)
        self._accepts: Group[postgres_accept.Accepting, Reply | None] = Group(self._accept)
        self._doubts: Group[Sequence[Claim], None] = Group(self._doubt)
        self._settles: Group[postgres_settle.Settling, None] = Group(self._settle)

    def __repr__(self) -> str:
        return f"PostgresSpool(name={self.name!r}, holder={self.holder!r}, fault={self._link.fault!r})"

    def fault(self) -> str:
        return self._link.fault

    def has_room(self) -> bool:
        """A full disk of the database shows at the commit."""
        return True

    def _woken(self) -> None:
        self.changed.set()
        self.news.set()

    # Accepting

    async def stage(self, message_id: str, sequence: int, chunk: bytes) -> None:
        await self._stages.submit((message_id, sequence, chunk))

    async def _stage(self, requests: Sequence[tuple[str, int, bytes]]) -> list[None]:
        async def work(transaction: Transaction) -> None:
            await transaction.fetch("staging_goes_on", transaction.now, sorted({message_id for message_id, _, _ in requests}))
            await transaction.many("insert_chunks", list({request[:2]: request for request in requests}.values()))

        await self._link.run(0, work)
        return [None] * len(requests)

    async def discard(self, message_id: str) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.fetch("delete_staged", [message_id])
            await transaction.fetch("staging_ends", [message_id])

        await self._link.run(0, work)

    async def accept(self, message: NewMessage, last_chunk: tuple[int, bytes]) -> Reply | None:
        request = postgres_accept.Accepting(message, *last_chunk)
        try:
            return await self._accepts.submit(request)
        except Lost:
            await asyncio.sleep(AGAIN_SECONDS)
            return await self._accepts.submit(request)

    async def _accept(self, requests: Sequence[postgres_accept.Accepting]) -> list[Reply | None]:
        now = max(request.message.received_at for request in requests)
        results = await self._link.run(now, lambda transaction: postgres_accept.accept(transaction, requests))
        self._woken()
        return results

    # Delivering

    async def claim(self, now: int, room: int, idle: Collection[Key]) -> tuple[list[Batch], int | None]:
        async def work(transaction: Transaction) -> tuple[list[Batch], int | None]:
            claiming = postgres_claim.Claiming(transaction, self.holder, transaction.now + self.lease_ms, self._limits_of)
            batches, next_at = await claiming.claim(room, idle)
            return batches, None if next_at is None else next_at + now - transaction.now

        return await self._link.run(now, work, lazy=True)

    async def doubt(self, claims: Sequence[Claim]) -> None:
        await self._doubts.submit(claims)

    async def _doubt(self, requests: Sequence[Sequence[Claim]]) -> list[None]:
        return await postgres_settle.doubt(self._link, self.holder, requests)

    async def settle(self, now: int, settlements: Sequence[Settlement], notices: Sequence[Notice], sessions: Sequence[TlsSession] = ()) -> None:
        await self._settles.submit(postgres_settle.Settling(now, settlements, notices, sessions))

    async def _settle(self, requests: Sequence[postgres_settle.Settling]) -> list[None]:
        now = max(request.now for request in requests)
        results = await self._link.run(now, lambda transaction: postgres_settle.settle(transaction, self.holder, requests))
        if any(makes_work(request.settlements, request.notices) for request in requests):
            self._woken()
        return results

    async def release_slot(self, now: int, batch: Batch, blocked_until: int) -> None:
        async def work(transaction: Transaction) -> None:
            until = blocked_until + transaction.now - now if blocked_until > now else 0
            await transaction.fetch("block_destination", batch.key.pool, batch.key.destination, until, transaction.now)
            await transaction.fetch("delete_slot", batch.slot)

        await self._link.run(now, work, lazy=True)
        self.changed.set()

    async def throttle(self, now: int, key: Key) -> None:
        await self._link.run(now, lambda transaction: postgres_settle.throttle(transaction, key), lazy=True)

    async def renew(self, now: int) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.fetch("hold_lease", self.holder, transaction.now + self.lease_ms)

        await self._link.run(now, work)

    async def give_back(self, now: int, claims: Sequence[Claim], due_at: int) -> int:
        async def work(transaction: Transaction) -> int:
            return await postgres_claim.give_back(transaction, self.holder, claims, due_at + transaction.now - now)

        count = await self._link.run(now, work)
        self._woken()
        return count

    async def recover(self, now: int) -> int:
        """While the database was away nobody could renew: leases that ended then count for one more lease."""
        await self._follow_clock(now)
        if asyncio.get_running_loop().time() - self._link.restored_at < self.lease_ms / 1000:
            return 0
        count = await self._link.run(now, postgres_claim.recover)
        if count:
            self._woken()
        await self._link.run(now, postgres_sweep.fold_tally)
        return count

    async def _follow_clock(self, now: int) -> None:
        async def work(transaction: Transaction) -> tuple[int, int]:
            return await postgres_clock.follow(transaction, self.lease_ms), transaction.now

        back, then = await self._link.run(now, work)
        if back:
            log.warning("the database's clock has gone back; what waits was moved with it", seconds=back // 1000)
            self._woken()
        if self._watch is not None and self._watch.went_forward(then):
            log.warning("the database's clock has gone forward; leases count for one more lease")
            self._link.restored_at = asyncio.get_running_loop().time()

    async def body(self, message_id: str) -> AsyncIterator[bytes]:
        sequence = 0
        while rows := await self._link.read(_body_reader(message_id, sequence)):
            for row in rows:
                yield row["data"]
            if len(rows) < READ_CHUNKS:
                return
            sequence += len(rows)

    # Memory

    async def recall(self, now: int, kind: str, name: str) -> str | None:
        row = await self._link.read(lambda c: c.fetchrow(SQL["recall"], kind, name, now))
        return str(row["value"]) if row is not None else None

    async def remember(self, now: int, kind: str, name: str, value: str, until: int) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.fetch("remember", kind, name, value, until)

        await self._link.run(now, work)

    async def agree(self, now: int, kind: str, name: str, value: str, until: int) -> str:
        async def work(transaction: Transaction) -> str:
            return str((await transaction.fetch("agree", kind, name, value, until, now))[0]["value"])

        return await self._link.run(now, work)

    # People

    async def list_messages(self, which: ListFilter) -> list[MessageRow]:
        return await self._link.read(lambda c: postgres_read.list_messages(c, which))

    async def show(self, message_id: str) -> MessageRow | None:
        return await self._link.read(lambda c: postgres_read.show(c, message_id))

    async def events(self, message_id: str, after: int, limit: int) -> list[EventRow]:
        return await self._link.read(lambda c: postgres_read.events(c, message_id, after, limit))

    async def dead_letters(self, before: DeadLetter | None, limit: int) -> list[DeadLetter]:
        return await self._link.read(lambda c: postgres_read.dead_letters(c, before, limit))

    async def stats(self, now: int) -> Stats:
        return await self._link.read(lambda c: postgres_read.stats(c, now))

    async def backlog(self, now: int) -> Backlog:
        async def work(connection: Connection) -> Backlog:
            return await postgres_read.backlog(connection, await self._link.now(connection, now), self._limits_of)

        return await self._link.read(work)

    async def reschedule(self, now: int, action: str, recipients: Sequence[RecipientRow]) -> int:
        changed = await self._link.run(now, lambda transaction: postgres_settle.reschedule(transaction, action, recipients))
        self._woken()
        return changed

    async def end(
        self,
        now: int,
        recipients: Sequence[RecipientRow],
        settlement: Callable[[Claim], Settlement],
        notices: Sequence[Notice],
    ) -> int:
        changed = await self._link.run(now, lambda transaction: postgres_settle.end(transaction, now, recipients, settlement, notices))
        self._woken()
        return changed

    async def suspend(self, now: int, key: Key, suspended: bool) -> int:
        async def work(transaction: Transaction) -> None:
            await transaction.fetch("suspend", key.pool, key.destination, suspended)
            transaction.wake(key.pool, key.destination, "", transaction.now)

        await self._link.run(now, work)
        self._woken()
        return 1

    async def suspend_tenant(self, now: int, tenant: str, suspended: bool) -> int:
        changed = await self._link.run(now, lambda transaction: postgres_settle.suspend_tenant(transaction, tenant, suspended))
        self._woken()
        return changed

    async def tell(self, now: int, message_id: str, address: str, event: EventDetail, entries: Sequence[Suppression]) -> int:
        async def work(transaction: Transaction) -> int:
            transaction.event(message_id, address, 0, event)
            return await postgres_suppression.suppress(transaction, entries)

        return await self._link.run(now, work)

    async def suppress(self, entries: Sequence[Suppression]) -> int:
        return await self._link.run(0, lambda transaction: postgres_suppression.suppress(transaction, entries))

    async def unsuppress(self, entries: Sequence[Suppression]) -> int:
        return await self._link.run(0, lambda transaction: postgres_suppression.unsuppress(transaction, entries))

    async def suppressions(self, which: SuppressionFilter) -> list[Suppression]:
        return await self._link.read(lambda c: postgres_suppression.suppressions(c, which))

    async def suppressed(self, now: int, tenant: str, domain: str, addresses: Sequence[str]) -> dict[str, Suppression]:
        return await self._link.read(lambda c: postgres_suppression.suppressed(c, now, tenant, domain, addresses))

    async def sweep(self, before: int) -> int:
        return await self._link.run(before, lambda transaction: postgres_sweep.sweep(transaction, before))

    # Results of TLS

    async def tls_domains(self, day: int, after: str, limit: int) -> list[str]:
        return await self._link.read(lambda c: postgres_tls.domains(c, day, after, limit))

    async def tls_counts(self, day: int, domain: str) -> list[TlsCount]:
        return await self._link.read(lambda c: postgres_tls.counts(c, day, domain))

    async def forget_tls(self, day: int, domain: str = "") -> None:
        await self._link.run(0, lambda transaction: postgres_tls.forget(transaction, day, domain))

    # Analytics

    async def roll_up(self) -> int:
        return await self._link.run(0, postgres_rollup.roll_up, lazy=True)

    async def facts(self, span: tuple[int, int, int], by: tuple[str, ...], where: Mapping[str, str]) -> list[tuple[tuple[str, ...], str, int, int]]:
        return await self._link.read(lambda c: postgres_rollup.ask(c, span, by, where))

    async def forget_facts(self, now: int) -> None:
        await self._link.run(now, lambda transaction: postgres_rollup.forget(transaction, transaction.now))

    async def close(self) -> None:
        """Waits for what was submitted; what is still leased is free for others at once."""
        for group in (self._stages, self._accepts, self._doubts, self._settles):
            await group.close()

        async def work(transaction: Transaction) -> None:
            await transaction.fetch("end_lease", self.holder)

        with contextlib.suppress(Unavailable):
            await self._link.run(0, work)


def _body_reader(message_id: str, sequence: int) -> Callable[[Any], Any]:
    return lambda connection: connection.fetch(SQL["read_body"], message_id, sequence, READ_CHUNKS)


# Opening


@contextlib.asynccontextmanager
async def open_postgres(
    url: Callable[[], str], holder: str, limits_of: LimitsOf, *, lease_ms: int = LEASE_MS, caller_clock: bool = False
) -> AsyncIterator[PostgresSpool]:
    """Connects, migrates and recovers the spool. `url` is asked for every new connection, so that a password may change.

    Raises Permanent with one sentence when the spool cannot be used as it is, or does not answer for START_SECONDS.
    """
    parts = urlsplit(url())
    async with connect(url) as pool:
        await _migrated(pool)
        name = f"postgresql://{parts.hostname or 'localhost'}{parts.path}"
        spool = PostgresSpool(Link(pool, caller_clock=caller_clock), name, holder, limits_of, lease_ms)
        notifying = asyncio.create_task(supervised("notifications", lambda: listening(url, holder, spool.changed, spool.news)))
        try:
            yield spool
        finally:
            notifying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await notifying
            await spool.close()


async def _migrated(pool: Any) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    async with pool.acquire(timeout=CONNECT_SECONDS) as connection:
                        return await migrate(connection)
                except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError) as error:
                    raise Permanent(f"the spool's database refuses us: {error}") from error
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    log.warning("the spool's database does not answer yet", reason=str(error) or type(error).__name__)
                    await asyncio.sleep(1.0)
    except TimeoutError as error:
        raise Permanent(f"the spool's database did not answer within {START_SECONDS:.0f} s") from error
