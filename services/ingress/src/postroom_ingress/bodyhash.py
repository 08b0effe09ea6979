"""The DKIM body hash, computed while the body passes through ingress (RFC 6376 section 3.4.4). Pure; keeps no part of the body.

Blocks are whole lines, so a block that is already canonical, as most are, costs three searches and the hash.
"""

import hashlib

_TAB_TO_SPACE = bytes.maketrans(b"\t", b" ")


class RelaxedBodyHash:
    """`feed` blocks of lines ended by CRLF in order, then `digest`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._empty_lines = 0  # seen and not hashed: they count only if something follows

    def feed(self, block: bytes) -> None:
        if b"\t" in block:
            block = block.translate(_TAB_TO_SPACE)
        while b"  " in block:
            block = block.replace(b"  ", b" ")
        block = block.replace(b" \r\n", b"\r\n")
        content = block.rstrip(b"\r\n")
        if content:
            self._hash.update(b"\r\n" * self._empty_lines)
            self._empty_lines = 0
            content += b"\r\n"
            self._hash.update(content)
        self._empty_lines += (len(block) - len(content)) // 2

    def digest(self) -> bytes:
        """32 octets; trailing empty lines do not count, an empty body is the hash of nothing."""
        return self._hash.digest()
