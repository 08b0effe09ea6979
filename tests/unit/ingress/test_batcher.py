"""Calls that share a round trip: no timer, order kept, faults told to those whom they concern."""

import asyncio
from collections.abc import Sequence

import pytest

from postroom_core.errors import Unavailable
from postroom_ingress.batcher import Batcher, Bounds


class Service:
    """Answers ten times the request; every call waits until `go` is set, and `fail` makes the next one fail."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.go = asyncio.Event()
        self.fail = False

    async def __call__(self, requests: Sequence[int]) -> Sequence[int]:
        self.calls.append(list(requests))
        await self.go.wait()
        if self.fail:
            self.fail = False
            raise Unavailable("away")
        return [request * 10 for request in requests]


def batcher(service: Service, *, parallel: int = 1, most: int = 4, heaviest: int = 1000) -> Batcher[int, int]:
    return Batcher(service, lambda request: request, Bounds(parallel, most, heaviest))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_waits_during_a_call_goes_together_with_the_next() -> None:
    async def scenario() -> None:
        service = Service()
        asked = batcher(service)
        first = asyncio.create_task(asked.ask(1))
        await turn()
        others = [asyncio.create_task(asked.ask(number)) for number in (2, 3, 4, 5, 6)]
        await turn()
        assert service.calls == [[1]]
        service.go.set()
        assert await asyncio.gather(first, *others) == [10, 20, 30, 40, 50, 60]
        assert service.calls == [[1], [2, 3, 4, 5], [6]]

    asyncio.run(scenario())


def test_a_heavy_request_goes_alone_and_never_waits_for_ever() -> None:
    async def scenario() -> None:
        service = Service()
        service.go.set()
        asked = batcher(service, heaviest=10)
        answers = await asyncio.gather(*(asked.ask(number) for number in (6, 50, 4, 5)))
        assert answers == [60, 500, 40, 50]
        assert service.calls == [[6], [50], [4, 5]]

    asyncio.run(scenario())


def test_a_failed_call_fails_its_own_requests_only() -> None:
    async def scenario() -> None:
        service = Service()
        service.fail = True
        asked = batcher(service)
        first = asyncio.create_task(asked.ask(1))
        await turn()
        second = asyncio.create_task(asked.ask(2))
        await turn()
        service.go.set()
        with pytest.raises(Unavailable):
            await first
        assert await second == 20

    asyncio.run(scenario())


def test_a_caller_that_is_cancelled_disturbs_nobody() -> None:
    async def scenario() -> None:
        service = Service()
        asked = batcher(service)
        first, second = asyncio.create_task(asked.ask(1)), asyncio.create_task(asked.ask(2))
        await turn()
        first.cancel()
        await turn()
        service.go.set()
        assert await second == 20
        assert first.cancelled()

    asyncio.run(scenario())


def test_an_answer_too_few_is_an_error_and_not_a_mix_up() -> None:
    async def scenario() -> None:
        async def short(requests: Sequence[int]) -> Sequence[int]:
            return list(requests)[:-1]

        asked: Batcher[int, int] = Batcher(short, lambda _: 1, Bounds(1, 4, 1000))
        results = await asyncio.gather(asked.ask(1), asked.ask(2), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)

    asyncio.run(scenario())
