"""The messages that delivery makes itself, DSNs: whose name they carry, and their signature as they leave.

They are signed at each attempt, not when they are made: a bounce must be recorded although the signer is away, and a message in the queue outlives
a key. Without a signature such a message waits (P4) and ends by expiry like any other.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from postroom_core.bodyhash import RelaxedBodyHash
from postroom_core.clock import Clock
from postroom_core.documents import SenderDomain
from postroom_core.errors import Unavailable
from postroom_delivery.bounce import Author
from postroom_delivery.classify import Class
from postroom_delivery.clients import SignerClient
from postroom_delivery.outcome import Deferred, later
from postroom_delivery.spool.model import ClaimedMessage

Body = Callable[[str], AsyncIterator[bytes]]


class Signing:
    """`client` None: no signer is configured; then our messages carry this host's own name, which no DMARC record of a tenant speaks for."""

    def __init__(self, client: SignerClient | None, own_name: str, clock: Clock, body: Body) -> None:
        self._client = client
        self._own_name = own_name
        self._clock = clock
        self._body = body

    def author(self, sender: SenderDomain | None) -> tuple[Author, bool]:
        """Who writes to a sender of this domain, and whether it is signed."""
        if sender is None or not sender.signed or self._client is None:
            return Author(self._own_name, self._own_name), False
        return Author(self._own_name, sender.name), True

    async def signed(self, message: ClaimedMessage) -> ClaimedMessage | Deferred:
        """The message as it may leave, or why it must wait."""
        if not message.sign:
            return message
        if self._client is None:
            return later("4.7.0", "no signer is configured to sign this notice", Class.OTHER)
        body = message.body
        if body is None:  # bounded: see bounce.MOST_RETURNED
            body = b"".join([chunk async for chunk in self._body(message.id)])
        digest = RelaxedBodyHash()
        digest.feed(body)
        try:
            fields = await self._client.sign(message.domain, message.tenant, message.headers, digest.digest(), self._clock.now_ms() // 1000)
        except Unavailable as error:
            return later("4.7.0", f"the notice could not be signed: {error}", Class.OTHER)
        return replace(message, headers=fields + message.headers)
