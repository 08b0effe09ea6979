"""A clock that moves only when told. It stands in for postroom_core.clock.SystemClock wherever a Clock is handed down.

It never looks at the machine's clocks, so that a test of a four-hour back-off takes no time and has one result.
"""

import asyncio
import heapq
import itertools

# An arbitrary fixed start, 2026-01-05 00:00:00 UTC, a Monday: dates in expected output are then constants.
START_MS = 1_767_571_200_000


class FakeClock:
    """Implements postroom_core.clock.Clock. Sleepers wake in the order of their due times while `advance` moves the time."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self._now_ms = start_ms
        self._elapsed_ms = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return self._now_ms

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed_ms / 1000

    async def sleep(self, seconds: float) -> None:
        """Returns once `advance` has moved the clock by `seconds`; at the next turn of the loop when `seconds` is not above zero."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = self._elapsed_ms + max(1, round(seconds * 1000))
        heapq.heappush(self._sleepers, (due, next(self._order), future))
        self._changed.set()
        await future

    @property
    def sleeping(self) -> int:
        """How many sleepers wait."""
        return sum(1 for _, _, future in self._sleepers if not future.done())

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Returns when at least `count` sleepers wait: the code under test has then reached its pause."""
        while self.sleeping < count:
            self._changed.clear()
            await self._changed.wait()

    async def advance(self, seconds: float) -> None:
        """Moves both times forward by `seconds`. Every sleeper that is due wakes at its own time and runs before the clock moves on."""
        target = self._elapsed_ms + round(seconds * 1000)
        await asyncio.sleep(0)
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, future = heapq.heappop(self._sleepers)
            self._move(due)
            if not future.done():
                future.set_result(None)
                for _ in range(5):  # woken code usually needs a few turns to reach its next pause
                    await asyncio.sleep(0)
        self._move(target)

    def step(self, seconds: float) -> None:
        """Moves wall time alone, as an administrator or NTP does; monotonic time and sleepers do not notice."""
        self._now_ms += round(seconds * 1000)

    def _move(self, elapsed_ms: int) -> None:
        self._now_ms += elapsed_ms - self._elapsed_ms
        self._elapsed_ms = elapsed_ms
