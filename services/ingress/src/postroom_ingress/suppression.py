"""Whether a recipient gets no mail any more, asked at RCPT. An ordinary recipient costs nothing: the answer is in a filter that delivery makes.

The filter is fetched again in the background while it is used. Without one, or when it is old, and for an address that may be in it, delivery is
asked; if it does not answer, the recipient is for later (P1): the message could not be accepted either.
"""

import asyncio
from typing import Protocol

from postroom_core.clock import Clock
from postroom_core.errors import Unavailable
from postroom_core.reply import Reply
from postroom_core.suppression import Filter, keys

# Twice this and an entry is known everywhere; delivery checks once more before it sends.
FRESH_SECONDS = 2.0
# An older filter says nothing: every recipient is a question.
OLD_SECONDS = 30.0
FORGED = Reply(550, "5.1.1", "This return path is not one of ours, or of mail long ago")
AWAY = Reply(451, "4.3.0", "The recipient cannot be checked now, try again later")


class Source(Protocol):
    """A delivery's list. Both raise Unavailable."""

    async def filter(self, version: str) -> tuple[str, bytes]:
        """(version, bits); bits are empty when the caller's version is the newest."""

    async def lookup(self, tenant: str, domain: str, address: str) -> str:
        """Why the address gets no mail, "" when it does."""


class SuppressionList:
    """The list of one delivery."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._filter = Filter.sized(0)
        self._version = ""
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"SuppressionList(version={self._version!r})"

    async def refusal(self, tenant: str, domain: str, address: str) -> Reply | None:
        """The reply to RCPT for a suppressed address."""
        age = self._clock.monotonic() - self._fetched_at
        if age > FRESH_SECONDS and (self._fetching is None or self._fetching.done()):
            self._fetching = asyncio.create_task(self._fetch())
        if age <= OLD_SECONDS and not any(key in self._filter for key in keys(tenant, domain, address)):
            return None
        try:
            text = await self._source.lookup(tenant, domain, address)
        except Unavailable:
            return AWAY
        return Reply(550, "5.7.1", text) if text else None

    async def _fetch(self) -> None:
        asked_at = self._clock.monotonic()
        try:
            version, bits = await self._source.filter(self._version)
        except Unavailable:
            return  # asked again with the next recipient
        if bits:
            self._filter, self._version = Filter(bits), version
        self._fetched_at = asked_at
