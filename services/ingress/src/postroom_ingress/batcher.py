"""Calls that share a round trip: what waits while one call is under way goes together with the next. Used by the gRPC clients of ingress.

The mechanism is that of the spool's group commit: there is no timer, so nobody waits for companions, and the busier the service the fewer calls
a message costs. At most `parallel` calls are under way; a call takes what waits, in order, up to `most` requests and `heaviest` octets. A caller
that is cancelled leaves its request where it is: the call may already carry it.
"""

import asyncio
import collections
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from postroom_core.errors import Unavailable

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Bounds:
    """`parallel` calls at once, each of at most `most` requests and `heaviest` octets (one request may be heavier: it then goes alone)."""

    parallel: int
    most: int
    heaviest: int


class Batcher(Generic[Q, A]):
    """`call` answers one per request, in order; what it raises is raised to everybody in that call. `weight` is a request's size in octets."""

    def __init__(self, call: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], weight: Callable[[Q], int], bounds: Bounds) -> None:
        self._call = call
        self._weight = weight
        self._bounds = bounds
        self._waiting: collections.deque[tuple[Q, asyncio.Future[A]]] = collections.deque()
        self._calls: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Batcher(waiting={len(self._waiting)}, calls={len(self._calls)})"

    async def ask(self, request: Q) -> A:
        """The answer to one request. Raises what the call raises."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if len(self._calls) < self._bounds.parallel:
            self._start()
        return await future

    def _start(self) -> None:
        task = asyncio.create_task(self._run())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _run(self) -> None:
        while batch := self._take():
            try:
                answers = await self._call([request for request, _ in batch])
                if len(answers) != len(batch):
                    raise Unavailable("an answer that does not fit its requests")
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _take(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        octets = 0
        while self._waiting and len(batch) < self._bounds.most:
            octets += self._weight(self._waiting[0][0])
            if batch and octets > self._bounds.heaviest:
                break
            batch.append(self._waiting.popleft())
        return batch
