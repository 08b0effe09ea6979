"""Message ids: made by ingress before anything is stored, so that handing a message over is safe to repeat.

26 characters of Crockford's base 32: 48 bits of milliseconds, 80 random bits. Ids sort by time, which keeps the spool's index dense at one end.
"""

import secrets

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
LENGTH = 26


def new_message_id(now_ms: int, randomness: int | None = None) -> str:
    """The id of a message received at `now_ms` (Unix time in milliseconds); `randomness` is 80 bits, drawn when not given."""
    value = (now_ms & (1 << 48) - 1) << 80 | (secrets.randbits(80) if randomness is None else randomness)
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


def is_message_id(text: str) -> bool:
    """Whether `text` has the form of a message id (it says nothing about whether the message exists)."""
    return len(text) == LENGTH and all(character in _ALPHABET for character in text)
