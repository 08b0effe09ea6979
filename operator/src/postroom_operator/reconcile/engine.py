"""When a resource is reconciled: woken by a change, at its deadline, after a failure with growing pauses, and every ten minutes at the latest.

One coroutine per resource; a lock per resource, so that the finalizer waits for a running reconcile and none begins after it. The engine knows
nothing of what a reconcile does, and nothing of kopf: another source of wake-ups is another few lines.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter, Gauge, Histogram

from postroom_core.errors import PostroomError, Transient
from postroom_core.lifecycle import guarded

log = structlog.get_logger(__name__)
RESYNC_SECONDS = 600.0
JITTER = 0.1
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
# At once; the API server's own fairness does the rest.
CONCURRENT = 16
# Key generation and a slow API server fit; a hang does not.
RUN_SECONDS = 60.0

RECONCILES = Counter("postroom_operator_reconciles", "Reconciles by kind and outcome", ["kind", "outcome"])
PENDING = Gauge("postroom_operator_pending", "Resources that have not been reconciled since this process leads")
SECONDS = Histogram("postroom_operator_reconcile_seconds", "Time of one reconcile", ["kind"], buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60))

Work = Callable[[str, str], Awaitable[float]]  # namespace, name → seconds until it wants to run again


@dataclass
class _Turn:
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures: int = 0
    gone: bool = False
    pending: bool = True


class Engine:
    """Turns of all resources, by uid."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._running: dict[str, float] = {}
        self.stopped = False

    def __repr__(self) -> str:
        return f"Engine(resources={len(self._turns)}, running={len(self._running)})"

    def wake(self, uid: str) -> None:
        """Runs it soon; nothing happens for a uid that is not ours."""
        if (turn := self._turns.get(uid)) is not None:
            turn.wake.set()

    async def stop(self) -> None:
        """No reconcile begins any more; returns when the running ones have ended."""
        self.stopped = True
        for turn in self._turns.values():
            turn.wake.set()
        for turn in list(self._turns.values()):
            async with turn.lock:
                pass

    @property
    def longest_run(self) -> float:
        """Seconds since the oldest running reconcile began."""
        return time.monotonic() - min(self._running.values(), default=time.monotonic())

    async def serve(self, kind: str, uid: str, place: tuple[str, str], work: Work) -> None:
        """The life of one resource; ends when it is forgotten or the task is cancelled."""
        turn = self._turns.setdefault(uid, _Turn())
        PENDING.inc(turn.pending)
        try:
            while not turn.gone and not self.stopped:
                turn.wake.clear()
                pause = await self._run_once(kind, uid, place, work, turn)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(turn.wake.wait(), pause if not self.stopped else 0)
        finally:
            PENDING.dec(turn.pending)

    async def _run_once(self, kind: str, uid: str, place: tuple[str, str], work: Work, turn: _Turn) -> float:
        """Raises nothing but cancellation. Seconds until the next run."""
        async with turn.lock, self._slots:
            if turn.gone or self.stopped:
                return 0.0
            self._running[uid] = began = time.monotonic()
            try:
                async with asyncio.timeout(RUN_SECONDS):
                    wanted = await guarded("reconcile", work(*place))
                if wanted is None:
                    raise Transient("unforeseen error")
            except (PostroomError, TimeoutError) as error:
                return self._failed(kind, place, turn, str(error) or f"took longer than {RUN_SECONDS:.0f} s")
            finally:
                del self._running[uid]
                SECONDS.labels(kind).observe(time.monotonic() - began)
        turn.failures = 0
        PENDING.dec(turn.pending)
        turn.pending = False
        RECONCILES.labels(kind, "done").inc()
        resync: float = RESYNC_SECONDS * random.uniform(1 - JITTER, 1 + JITTER)
        return min(wanted, resync)

    def _failed(self, kind: str, place: tuple[str, str], turn: _Turn, reason: str) -> float:
        RECONCILES.labels(kind, "failed").inc()
        pause: float = min(FIRST_PAUSE_SECONDS * 2**turn.failures, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)
        turn.failures = min(turn.failures + 1, 16)
        log.warning("reconcile failed; it will run again", kind=kind, namespace=place[0], name=place[1], reason=reason, pause_seconds=round(pause, 1))
        return pause

    @contextlib.asynccontextmanager
    async def ending(self, uid: str) -> AsyncIterator[None]:
        """For the finalizer: waits for a running reconcile; after it none begins."""
        turn = self._turns.setdefault(uid, _Turn())
        turn.gone = True
        turn.wake.set()
        async with turn.lock:
            yield
        self._turns.pop(uid, None)
