"""The life of a service process: start, signals, drain, stop; and work that must not be cut.

Every service is one `async with` stack opened in its `app` and closed in reverse. A signal asks for the drain; a second one forces it.
On one machine the service also drains when its standard input ends: that is how a supervisor's death is noticed, even by kill -9.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog
import uvloop

from postroom_core.errors import PostroomError

T = TypeVar("T")
log = structlog.get_logger(__name__)

SAME_SIGNAL_SECONDS = 1.0
LIFELINE = "POSTROOM_LIFELINE"  # set to 1 by the supervisor: drain when standard input ends


async def finish(work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """Runs `work` to its end even when the caller is cancelled, any number of times; the cancellation is raised afterwards.

    For commits: a plain shield returns at the first cancellation and leaves nobody waiting for the result.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # the task's own error: raised below by result()
            break
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # mark as seen; the canceller asked not to hear it
        raise cancelled
    return task.result()


async def supervised(name: str, work: Callable[[], Awaitable[None]], *, pause_seconds: float = 1.0) -> None:
    """Runs independent endless work again after an error, so that one part's fault never ends the others.

    With `guarded` the only blanket `except Exception` of the product: the error is logged in full and the part goes on after a pause.
    """
    while True:
        try:
            await work()
        except Exception:
            log.exception("part failed; it will run again", part=name, pause_seconds=pause_seconds)
            await asyncio.sleep(pause_seconds)
        else:
            return


async def guarded(name: str, work: Awaitable[T]) -> T | None:
    """The result of one piece of work, or None after an error that nobody foresaw: it is logged in full, and the caller treats it as *later*."""
    try:
        return await work
    except PostroomError:
        raise
    except Exception:
        log.exception("unforeseen error", part=name)
        return None


class Stopping:
    """The request to stop, as seen by the parts of a service."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._since = 0.0

    def request(self) -> None:
        """The second request forces. One Ctrl-C can arrive twice, by the terminal and by a wrapper: within a second it is one."""
        now = asyncio.get_running_loop().time()
        if not self._event.is_set():
            self._since = now
            self._event.set()
        elif now - self._since > SAME_SIGNAL_SECONDS:
            os._exit(130)

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()


async def _watch_lifeline(stopping: Stopping) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    if not stopping.requested:
        stopping.request()


async def _main(app: Callable[[Stopping], Awaitable[None]]) -> None:
    stopping = Stopping()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.request)
    lifeline = asyncio.create_task(_watch_lifeline(stopping)) if os.environ.get(LIFELINE) == "1" else None
    try:
        await app(stopping)
    finally:
        if lifeline is not None:
            lifeline.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await lifeline


def run(app: Callable[[Stopping], Awaitable[None]]) -> None:
    """Runs a service until it is asked to stop and has drained."""
    # What the imports made lives for ever: the collector need not walk it. A message makes a few hundred short-lived objects and no cycles, so the
    # default of one walk per 700 objects, about two a message, finds nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    uvloop.run(_main(app))
