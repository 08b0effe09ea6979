"""Asks ingress which generation of a MailDomain is in force, so that its status can say when a limit holds on every replica.

The ready replicas are the addresses in the EndpointSlices of their Service; each is asked by itself, at its side door.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from postroom_core import http
from postroom_operator.kube.api import Api, bracketed


class Ingresses(Protocol):
    """Who can say what is in force at ingress."""

    async def acknowledged(self, domain: str) -> int | None:
        """The least generation that is in force at any ready replica: 0 when one does not know the domain, -1 when one does not answer.

        None without replicas.
        """


# A thousand changes at once are asked about with one list of the replicas.
FRESH_SECONDS = 2.0


class ServiceIngresses:
    """The replicas behind a Service."""

    def __init__(self, api: Api, service: tuple[str, str], port: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`service` is (namespace, name)."""
        self._api, self._service, self._port = api, service, port
        self._monotonic = monotonic
        self._looked_at = -FRESH_SECONDS
        self._addresses: Sequence[str] = ()
        self._looking = asyncio.Lock()

    async def acknowledged(self, domain: str) -> int | None:
        addresses = await self._ready()
        answers = await asyncio.gather(*(http.ask(f"{bracketed(address)}:{self._port}", f"/generation/{domain}") for address in addresses))
        return min((int(text) if status == 200 else 0 if status == 404 else -1 for status, text in answers), default=None)

    async def _ready(self) -> Sequence[str]:
        async with self._looking:
            if self._monotonic() - self._looked_at >= FRESH_SECONDS:
                self._addresses = await self._api.ready_addresses(*self._service)
                self._looked_at = self._monotonic()
            return self._addresses
