"""Return paths that name one recipient of one message, and the proof in them that they are ours (VERP with an HMAC).

A bounce comes back to the address that the message left with. So the address says which recipient it is about, however badly the bounce is written;
and because a stranger cannot make such an address, nobody but a host that had the message can say something about a recipient.

The key is the queue's own secret: made by whichever process needs it first, kept in the spool, never anywhere else. It changes every PERIOD; a
message is proven by the key of the time when it was accepted, so that every attempt has the same address (greylisting), and keys last as long as a
message may be held, tried and bounced late.
"""

import base64
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

from postroom_core.clock import Clock
from postroom_core.documents import SenderDomain
from postroom_core.returnpath import ReturnPath, parse
from postroom_delivery.spool.interface import Memory
from postroom_delivery.spool.model import Claim, ClaimedMessage

PERIOD_MS = 30 * 86_400_000
# A message may be held for 30 days and tried for some more; its bounce may come a week later: two periods, and the one that runs.
_LASTS = 3
# The clocks of pods differ; beyond this a key of the future is none.
_SLACK_MS = 3_600_000
# 80 bits: a guess costs a dialogue with ingress, so 2^80 of them are out of reach, and the address stays within 64 octets.
_PROOF_OCTETS = 10
_KIND = "return-path-key"


class Verp:
    """One for the process."""

    def __init__(self, memory: Memory, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock
        self._keys: dict[int, bytes] = {}

    def __repr__(self) -> str:
        return f"Verp(keys={sorted(self._keys)})"  # the periods, never the keys

    async def split(self, message: ClaimedMessage, sender: SenderDomain | None) -> Sequence[ClaimedMessage]:
        """The message as it leaves: with a reverse-path for each recipient where its domain has a return path, else as it is. Raises Unavailable.

        Notices of ours keep the null reverse-path. Who asked for notices of success gets them from the next host, under the own reverse-path.
        """
        if sender is None or not sender.return_path or not leaves_singly(message.reverse_path, message.claims):
            return (message,)
        key = await self._key(message.received_at)
        return [replace(message, claims=(claim,), reverse_path=_address(sender.return_path, message.id, claim, key)) for claim in message.claims]

    async def verified(self, addresses: Iterable[str]) -> ReturnPath | None:
        """The first of these addresses that is a return path of ours, with its proof right; in constant time whatever is wrong with one."""
        for address in addresses:
            found = parse(address)
            if found is None:
                continue
            keys = [key for period in self._periods() if (key := await self._known(period)) is not None]
            if True in [hmac.compare_digest(found.proof, _proof(found.base, found.message_id, found.recipient, key)) for key in keys]:
                return found
        return None

    def _periods(self) -> range:
        now = self._clock.now_ms()
        return range(now // PERIOD_MS - _LASTS, (now + _SLACK_MS) // PERIOD_MS + 1)

    async def _known(self, period: int) -> bytes | None:
        if period not in self._keys:
            stored = await self._memory.recall(self._clock.now_ms(), _KIND, str(period))
            if stored is None:
                return None
            self._keys[period] = bytes.fromhex(stored)
        return self._keys[period]

    async def _key(self, accepted_at: int) -> bytes:
        period = max(accepted_at // PERIOD_MS, self._clock.now_ms() // PERIOD_MS - _LASTS)
        if period not in self._keys:
            self._keys = {known: key for known, key in self._keys.items() if known in self._periods()}
            until = (period + 1 + _LASTS) * PERIOD_MS
            stands = await self._memory.agree(self._clock.now_ms(), _KIND, str(period), secrets.token_hex(32), until)
            self._keys[period] = bytes.fromhex(stands)
        return self._keys[period]


def leaves_singly(reverse_path: str, claims: Iterable[Claim]) -> bool:
    """Whether a message of a domain with a return path has a reverse-path for each recipient."""
    return bool(reverse_path) and not any("SUCCESS" in claim.notify.split(",") for claim in claims)


def _address(base: str, message_id: str, claim: Claim, key: bytes) -> str:
    return str(ReturnPath(base, message_id, claim.recipient, _proof(base.lower(), message_id, claim.recipient, key)))


def _proof(base: str, message_id: str, recipient: int, key: bytes) -> str:
    digest = hmac.digest(key, f"return path\0{base}\0{message_id}\0{recipient}".encode(), "sha256")
    return base64.b32encode(digest[:_PROOF_OCTETS]).decode().lower()
