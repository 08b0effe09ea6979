"""Asks ingress which generation of a MailDomain is in force, so that its status can say when a limit holds on every replica.

The ready replicas are the addresses in the EndpointSlices of their Service; each is asked by itself, at its side door.
"""

import asyncio
from typing import Protocol

from postroom_core import http
from postroom_operator.kube.api import Api, bracketed


class Ingresses(Protocol):
    """Who can say what is in force at ingress."""

    async def acknowledged(self, domain: str) -> int | None:
        """The least generation that is in force at any ready replica; None when one does not know the domain, or when there is no replica."""


class ServiceIngresses:
    """The replicas behind a Service."""

    def __init__(self, api: Api, service: tuple[str, str], port: int) -> None:
        """`service` is (namespace, name)."""
        self._api, self._service, self._port = api, service, port

    async def acknowledged(self, domain: str) -> int | None:
        addresses = await self._api.ready_addresses(*self._service)
        answers = await asyncio.gather(*(http.ask(f"{bracketed(address)}:{self._port}", f"/generation/{domain}") for address in addresses))
        known = [int(text) for status, text in answers if status == 200]
        return min(known) if known and len(known) == len(answers) else None
