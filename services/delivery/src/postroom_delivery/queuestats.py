"""What an autoscaler asks delivery: GET /queue-stats at the side door, two numbers as Prometheus writes them, about the whole spool, whichever
process answers. So one answer is enough and a sum over processes would be wrong; that is why they are not in /metrics, where everybody sums.
"""

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from postroom_core.clock import Clock
from postroom_core.errors import Unavailable
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Backlog

# Autoscalers ask every 15 s, and each trigger asks by itself: they share one look at the spool.
FRESH_SECONDS = 5.0
_DUE = "Recipients that are due and permitted by every limit"
_OLDEST = "How long the first of them has been waiting for a worker"


class QueueStats:
    """The last look at the spool, renewed when it is asked for and old."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._looking = asyncio.Lock()
        self._last: tuple[float, Backlog] | None = None

    def __repr__(self) -> str:
        return f"QueueStats({self._last!r})"

    async def answer(self, _: web.Request) -> web.Response:
        """503 with the reason while the spool cannot be asked: an autoscaler must not take that for an empty queue."""
        try:
            found = await self._look()
        except Unavailable as error:
            return web.Response(text=f"{error}\n", status=503)
        text = _gauge("postroom_due_messages", _DUE, found.due) + _gauge("postroom_oldest_due_seconds", _OLDEST, found.oldest_ms / 1000)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _look(self) -> Backlog:
        async with self._looking:
            if self._last is None or self._clock.monotonic() - self._last[0] >= FRESH_SECONDS:
                found = await self._spool.backlog(self._clock.now_ms())
                self._last = (self._clock.monotonic(), found)
            return self._last[1]


def _gauge(name: str, text: str, value: float) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n"
