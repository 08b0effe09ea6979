"""The suppression list as delivery uses it: a filter for ingress, kept up to date, and the last check before an attempt.

Recipients are refused at RCPT by ingress; what was accepted before an entry was made is caught here. A message that is younger than every entry needs
no look into the spool, so an ordinary first attempt costs nothing.
"""

import secrets
from collections.abc import Mapping

from postroom_core.clock import Clock
from postroom_core.suppression import Filter, Key, keys, normal
from postroom_delivery.classify import Class
from postroom_delivery.outcome import Bounced, Cause
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Claim, ClaimedMessage, Suppression, SuppressionFilter

# An entry is known to every ingress within twice this; until then the check before the attempt counts.
POLL_SECONDS = 2.0
# Removed and expired entries leave the filter when it is made anew.
RENEW_SECONDS = 3600.0
PAGE = 1000
# Transactions end in another order than their numbers: the last ones are read again.
OVERLAP = 200
# Clocks of pods differ, and an entry is seen some seconds after it was made.
SLACK_MS = 60_000


class Suppressions:
    """`refresh` now and then; `filter` and `version` are for ingress."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._entries = 0
        self._last = 0
        self._generation = 0
        self._made_at = clock.monotonic()
        self._room = PAGE
        self._newest = 0
        self.filter = Filter.sized(self._room)

    def __repr__(self) -> str:
        return f"Suppressions(entries={self._entries}, version={self.version})"

    @property
    def version(self) -> str:
        """Changes with the filter; another process never has the same."""
        return f"{self._name}.{self._generation}.{self._last}"

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await self.refresh()
            await self._clock.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Takes up new entries; makes the filter anew when it is too small or old."""
        if self._clock.monotonic() - self._made_at > RENEW_SECONDS:
            self._anew()
        after = max(0, self._last - OVERLAP)
        while rows := await self._spool.suppressions(SuppressionFilter(after=after, limit=PAGE)):
            for row in rows:
                self.filter.add(_key(row))
                self._newest = max(self._newest, row.created_at)
            self._entries += sum(row.number > self._last for row in rows)
            after = rows[-1].number
            self._last = max(self._last, after)
            if self._entries > self._room:
                self._room *= 4
                self._anew()
                after = 0

    def _anew(self) -> None:
        self.filter = Filter.sized(self._room)
        self._entries, self._last = 0, 0
        self._generation += 1
        self._made_at = self._clock.monotonic()

    async def lookup(self, tenant: str, domain: str, address: str) -> Suppression | None:
        """The entry that keeps this domain's mail from an address."""
        found = await self._spool.suppressed(self._clock.now_ms(), tenant, domain, [normal(address)])
        return found.get(normal(address))

    async def refused(self, message: ClaimedMessage) -> Mapping[Claim, Bounced]:
        """The claims of a message that must not be tried. Notices of ours are not mail that somebody was meant to stop."""
        if message.sign or not message.reverse_path or self._newest + SLACK_MS < message.received_at <= self._clock.now_ms():
            return {}
        addresses = {normal(claim.address): claim for claim in message.claims}
        likely = [address for address in addresses if any(key in self.filter for key in keys(message.tenant, message.domain, address))]
        if not likely:
            return {}
        found = await self._spool.suppressed(self._clock.now_ms(), message.tenant, message.domain, likely)
        return {claim: refusal(found[normal(claim.address)]) for claim in message.claims if normal(claim.address) in found}


def refusal(entry: Suppression) -> Bounced:
    """What a suppressed recipient comes to."""
    return Bounced(Cause("5.7.1", text(entry), Class.POLICY), suppressed=True)


def text(entry: Suppression) -> str:
    """One sentence for the sender."""
    evidence = f" ({entry.evidence})" if entry.evidence else ""
    return f"The address is on the suppression list: {entry.reason}{evidence}"


def _key(entry: Suppression) -> Key:
    return entry.scope, entry.owner, entry.address
