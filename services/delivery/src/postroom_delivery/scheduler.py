"""The scheduler: claims due work and gives every batch a worker with a connection. The second station: reception → **scheduler** → attempt.

The mechanism:
- One loop claims. It is woken by every commit of the spool, by the time of the next due work, and by polling, which is what guarantees progress.
- One slot = one connection = one worker task. After its batch a worker waits a moment (LINGER_SECONDS) for more work of the same destination; the
  loop knows who waits, and the claim then needs no new slot. A worker that waits is *reserved* while a claim runs: it may not leave before the
  claim has answered, or the batch would have no owner.
- At most MOST_WORKERS run, so memory is bounded whatever the backlog (P9); one dead destination holds at most its own slots.
- Leases are renewed by one statement for all workers. What a crashed process leaves comes back when its lease ends.

It never opens a connection and decides nothing about a message.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from postroom_core.clock import Clock
from postroom_core.errors import Unavailable
from postroom_core.lifecycle import supervised
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Batch, Key

log = structlog.get_logger(__name__)

# 1.5 MiB a worker at the worst (a batch, two buffers): some 300 MiB; enough for 20 tarpits of 10 connections each and the rest of the world.
MOST_WORKERS = 200
# New connections cost the peer and us a handshake; peers close idle ones after 5 s and more.
LINGER_SECONDS = 2.0
POLL_SECONDS = 2.0
# One transaction claims at most this many batches, so that accepts do not wait behind it.
ROUND = 16
SWEEP_SECONDS = 600.0
RETENTION_MS = 7 * 86_400_000


@dataclass(eq=False)
class _Waiting:
    """A worker that waits for more work of its destination."""

    until: float
    work: asyncio.Future[Batch | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


Worker = Callable[[Batch, "Scheduler"], Awaitable[None]]


class Scheduler:
    """`worker` handles a batch, and may ask `more` for others; it ends when it gets None."""

    def __init__(self, spool: Spool, clock: Clock, worker: Worker) -> None:
        self._spool = spool
        self._clock = clock
        self._worker = worker
        self._waiting: dict[Key, list[_Waiting]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self.draining = False

    def __repr__(self) -> str:
        return f"Scheduler(workers={len(self._workers)}, waiting={sum(map(len, self._waiting.values()))}, draining={self.draining})"

    async def run(self) -> None:
        """Until cancelled."""
        with contextlib.suppress(Unavailable):
            await self._spool.renew(self._clock.now_ms())  # so that a clock that steps before the first renewal ends no lease
        async with asyncio.TaskGroup() as group:
            group.create_task(supervised("claim", self._claim_loop))
            group.create_task(supervised("renew", lambda: self._every(self._spool.lease_ms / 3000, self._spool.renew)))
            group.create_task(supervised("recover", lambda: self._every(self._spool.lease_ms / 6000, self._recover)))
            group.create_task(supervised("sweep", lambda: self._every(SWEEP_SECONDS, self._sweep)))

    async def drain(self, seconds: float) -> None:
        """Lets workers finish the message they are at; cancels the rest after `seconds` and says how many."""
        self.draining = True
        for waiting in [one for group in self._waiting.values() for one in group]:
            if not waiting.work.done():
                waiting.work.set_result(None)
        if not self._workers:
            return
        _, late = await asyncio.wait(self._workers, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("connections cut at the end of the drain; their messages are tried again", connections=len(late))
            await asyncio.wait(late, timeout=5)

    async def more(self, key: Key) -> Batch | None:
        """More work for a worker whose connection is open, None when there is none for a while or the service drains."""
        if self.draining:
            return None
        waiting = _Waiting(self._clock.monotonic() + LINGER_SECONDS)
        self._waiting.setdefault(key, []).append(waiting)
        self._spool.changed.set()  # there may be due work that only waited for a slot
        try:
            await asyncio.wait({waiting.work}, timeout=LINGER_SECONDS)
            if not waiting.work.done() and self._forget(key, waiting):
                return None
            return await waiting.work
        except asyncio.CancelledError:
            self._forget(key, waiting)
            raise

    def _forget(self, key: Key, waiting: _Waiting) -> bool:
        """Whether it was still waiting; False while a claim has it reserved."""
        group = self._waiting.get(key, [])
        if waiting not in group:
            return False
        group.remove(waiting)
        if not group:
            del self._waiting[key]
        return True

    # The loop

    async def _claim_loop(self) -> None:
        while True:
            self._spool.changed.clear()
            try:
                found, next_at = (0, None) if self.draining else await self._claim_once()
            except Unavailable as error:
                log.warning("spool unavailable, claims pause", reason=str(error))
                found, next_at = 0, None
            if not found:
                await self._wait(next_at)

    async def _wait(self, next_at: int | None) -> None:
        pause = POLL_SECONDS if next_at is None else min(POLL_SECONDS, max(0.005, (next_at - self._clock.now_ms()) / 1000))
        try:
            async with asyncio.timeout(pause):
                await self._spool.changed.wait()
        except TimeoutError:
            pass

    async def _claim_once(self) -> tuple[int, int | None]:
        room = min(ROUND, MOST_WORKERS - len(self._workers))
        reserved = {key: group.pop(0) for key, group in self._waiting.items()}
        self._waiting = {key: group for key, group in self._waiting.items() if group}
        if room < 1 and not reserved:
            return 0, None
        batches: list[Batch] = []
        try:
            batches, next_at = await self._spool.claim(self._clock.now_ms(), max(room, len(reserved)), reserved.keys())
        finally:
            for batch in batches:
                self._hand_over(batch, reserved.pop(batch.key, None))
            for key, waiting in reserved.items():
                self._put_back(key, waiting)
        return len(batches), next_at

    def _hand_over(self, batch: Batch, waiting: _Waiting | None) -> None:
        if waiting is not None and not waiting.work.done():
            waiting.work.set_result(batch)
            return
        task = asyncio.create_task(self._supervise(batch))
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    def _put_back(self, key: Key, waiting: _Waiting) -> None:
        if waiting.work.done():
            return
        if self.draining or self._clock.monotonic() >= waiting.until:
            waiting.work.set_result(None)
        else:
            self._waiting.setdefault(key, []).append(waiting)

    async def _supervise(self, batch: Batch) -> None:
        """A worker's fault ends the worker only; it gives back what it holds as soon as the spool can be used."""
        try:
            await self._worker(batch, self)
        except Unavailable as error:
            log.warning("spool unavailable, a connection was given up", destination=batch.key.destination, reason=str(error))

    # Housekeeping

    async def _every(self, seconds: float, work: Callable[[int], Awaitable[object]]) -> None:
        while True:
            await self._clock.sleep(seconds)
            await work(self._clock.now_ms())

    async def _recover(self, now: int) -> None:
        if count := await self._spool.recover(now):
            log.warning("leases ended without a result; the recipients are due again", recipients=count)

    async def _sweep(self, now: int) -> None:
        while await self._spool.sweep(now - RETENTION_MS):
            await asyncio.sleep(0)
