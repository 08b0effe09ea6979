"""Which addresses get no mail: the keys of an entry, and a Bloom filter over them. Pure.

Ingress must know for every recipient, and a call for each would cost more than the rest of RCPT. It holds the filter instead: an address that is not
in it is certainly not suppressed, one that is gets a question. Entries that were removed stay in the filter until it is made anew, which only costs
questions.
"""

import hashlib

SCOPES = ("global", "tenant", "domain")
_HASHES = 7
# Ten bits for each entry and seven hashes: one address in a hundred is asked for in vain.
_BITS_EACH = 10
_LEAST_OCTETS = 1024
# Half of what a gRPC message may have; beyond 400,000 entries more addresses are asked for in vain, nothing else.
_MOST_OCTETS = 512 * 1024

Key = tuple[str, str, str]


def normal(address: str) -> str:
    """Local parts are case-sensitive in theory only; two entries for one mailbox would let mail through."""
    return address.lower()


def keys(tenant: str, domain: str, address: str) -> tuple[Key, ...]:
    """The entries (scope, owner, address) that would keep this domain's mail from an address."""
    found = normal(address)
    return ("global", "", found), ("tenant", tenant, found), ("domain", domain, found)


class Filter:
    """May say yes for a key that is not there, never no for one that is."""

    def __init__(self, bits: bytes) -> None:
        self._bits = bytearray(bits)

    def __repr__(self) -> str:
        return f"Filter(octets={len(self._bits)})"

    def __bytes__(self) -> bytes:
        return bytes(self._bits)

    @classmethod
    def sized(cls, entries: int) -> "Filter":
        """An empty one with room for so many."""
        octets = min(_MOST_OCTETS, max(_LEAST_OCTETS, entries * _BITS_EACH // 8))
        return cls(bytes(octets))

    def add(self, key: Key) -> None:
        for position in self._positions(key):
            self._bits[position >> 3] |= 1 << (position & 7)

    def __contains__(self, key: Key) -> bool:
        return all(self._bits[position >> 3] & 1 << (position & 7) for position in self._positions(key))

    def _positions(self, key: Key) -> list[int]:
        digest = hashlib.blake2b("\0".join(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") | 1
        return [(first + turn * step) % (len(self._bits) * 8) for turn in range(_HASHES)]
