"""What the operator makes of the answers of several ingress pods; their side doors are real, the API's word about who is ready is the test's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from postroom_core import http
from postroom_operator.ingresses import FRESH_SECONDS, ServiceIngresses

from integration.core.test_mtls import free_port


class Api:
    """Who is ready; counts how often it is asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.asked = addresses, 0

    async def ready_addresses(self, namespace: str, service: str) -> Sequence[str]:
        self.asked += 1
        return self.addresses


@contextlib.asynccontextmanager
async def pod(address: str, port: int, known: dict[str, int]) -> AsyncIterator[None]:
    async def generation(request: web.Request) -> web.Response:
        found = known.get(request.match_info["domain"])
        return web.Response(text=f"{found}\n", status=404 if found is None else 200)

    app = web.Application()
    app.router.add_get("/generation/{domain}", generation)
    async with http.serve(f"{address}:{port}", app):
        yield


def test_a_change_is_in_force_when_the_last_replica_has_it() -> None:
    async def scenario() -> None:
        port = free_port()
        api: Any = Api("127.0.0.1", "127.0.0.2")
        now = 0.0
        ingresses = ServiceIngresses(api, ("mail", "ingress"), port, lambda: now)
        async with pod("127.0.0.1", port, {"a.example": 3, "b.example": 1}), pod("127.0.0.2", port, {"a.example": 2}):
            assert await ingresses.acknowledged("a.example") == 2
            assert await ingresses.acknowledged("b.example") == 0
        assert await ingresses.acknowledged("a.example") == -1
        assert api.asked == 1  # a thousand domains are one question to the API
        now = FRESH_SECONDS
        await ingresses.acknowledged("a.example")
        assert api.asked == 2

    asyncio.run(scenario())


def test_without_replicas_there_is_nobody_to_wait_for() -> None:
    api: Any = Api()
    assert asyncio.run(ServiceIngresses(api, ("mail", "ingress"), 1).acknowledged("a.example")) is None
