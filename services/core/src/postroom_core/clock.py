"""Time as a parameter. What decides takes `now`; only edges hold a Clock. The lint forbids time.time and datetime.now elsewhere."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for dates that others see, monotonic time for what must survive a clock step."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds` of this clock."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
