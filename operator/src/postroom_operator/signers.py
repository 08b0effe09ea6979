"""Asks the signers which selectors they hold, so that a key signs only when every ready signer has it.

The ready signers are the addresses in the EndpointSlices of their headless Service; each is asked by itself.
"""

import asyncio
import pathlib
from typing import Protocol

import structlog

from postroom_core.errors import Unavailable
from postroom_operator.clients import loaded
from postroom_operator.kube.api import Api, bracketed

log = structlog.get_logger(__name__)


class Signers(Protocol):
    """Who can say what the signers hold."""

    async def held_by_all(self, domain: str) -> frozenset[str]:
        """Selectors that every ready signer holds for a domain; empty when one does not answer, or when there is none."""


class ServiceSigners:
    """The signers behind a headless Service."""

    def __init__(self, api: Api, service: tuple[str, str], port: int, tls: pathlib.Path | None) -> None:
        """`service` is (namespace, name)."""
        self._api = api
        self._namespace, self._service = service
        self._port, self._tls = port, tls

    async def held_by_all(self, domain: str) -> frozenset[str]:
        targets = [f"{bracketed(address)}:{self._port}" for address in await self._api.ready_addresses(self._namespace, self._service)]
        if not targets:
            return frozenset()
        try:
            held = await asyncio.gather(*(loaded(target, domain, self._tls) for target in targets))
        except Unavailable as error:
            log.info("a signer does not answer", reason=str(error))
            return frozenset()
        return frozenset.intersection(*held)
