"""Which site a recipient domain belongs to: what DNS said last, remembered. DNS is asked by workers alone, never by an accept or a claim.

An accept uses what is known: the site, or the domain itself when its MX set has not been seen yet. A worker asks before it sends; if the
destination of its claim is not where the recipient belongs, the recipient moves there and is claimed again under the limits of that place.
"""

import asyncio
import collections

from postroom_core.errors import PostroomError
from postroom_delivery import routing
from postroom_delivery.resolver import Resolver

# A hundred bytes each.
MOST_KNOWN = 100_000


class Sites:
    """One for the process."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._known: collections.OrderedDict[str, tuple[str, float]] = collections.OrderedDict()  # the site, and until when of the loop's time

    def __repr__(self) -> str:
        return f"Sites(known={len(self._known)})"

    def known(self, domain: str) -> str | None:
        """The site as it was last seen; None before the first look."""
        known = self._known.get(domain)
        return None if known is None else known[0]

    async def look(self, domain: str) -> None:
        """Asks DNS, unless its last answer still holds. What DNS cannot say now stays as it was known."""
        now = asyncio.get_running_loop().time()
        known = self._known.get(domain)
        if known is not None and now < known[1]:
            return
        try:
            answer = await self._resolver.mx(domain)
        except PostroomError:
            return
        self._known[domain] = (routing.site_of(domain, answer.records), now + answer.seconds)
        self._known.move_to_end(domain)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
