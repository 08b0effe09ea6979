"""The DKIM body hash, computed while a body passes by (RFC 6376 section 3.4.4). Pure; keeps no part of the body.

The body may come in any pieces. What a piece ends with is held back while it may be part of what is not hashed: white space before CRLF, empty
lines at the end. So a piece that is already canonical, as most are, costs a few searches and the hash. Only CRLF is a line end: a bare CR or LF,
which BINARYMIME allows, is content. A last line without CRLF, which BDAT allows, is hashed as if it had one, as the RFC has it.
"""

import hashlib

_TAB_TO_SPACE = bytes.maketrans(b"\t", b" ")


class RelaxedBodyHash:
    """`feed` the body in order, then `digest`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held = b""  # "", " ", CR or " " CR
        self._line_ends = 0  # seen and not hashed: they count only if something follows
        self._empty = True

    def feed(self, block: bytes) -> None:
        if self._held:
            block = self._held + block
        if b"\t" in block:
            block = block.translate(_TAB_TO_SPACE)
        while b"  " in block:
            block = block.replace(b"  ", b" ")
        block = block.replace(b" \r\n", b"\r\n")
        held = 0
        if block.endswith(b"\r"):
            held = 1
        if block[len(block) - held - 1 : len(block) - held] == b" ":
            held += 1
        self._held = block[len(block) - held :]
        self._content(block[: len(block) - held])

    def _content(self, block: bytes) -> None:
        content = block.rstrip(b"\r\n")
        end = len(content) + _bare(block[len(content) :])
        if end:
            self._hash.update(b"\r\n" * self._line_ends)
            self._hash.update(block[:end])
            self._line_ends, self._empty = 0, False
        self._line_ends += (len(block) - end) // 2

    def digest(self) -> bytes:
        """32 octets; trailing empty lines do not count, an empty body is the hash of nothing."""
        final = self._hash.copy()
        if self._held.endswith(b"\r"):  # bare: content
            final.update(b"\r\n" * self._line_ends + self._held)
        if not self._empty or self._held.endswith(b"\r"):
            final.update(b"\r\n")
        return final.digest()


def _bare(line_ends: bytes) -> int:
    """How many of these CR and LF, the last of a block, come before its last unbroken run of CRLF."""
    if line_ends.count(b"\r\n") * 2 == len(line_ends):
        return 0
    if line_ends.endswith(b"\r"):
        return len(line_ends)
    lf, cr = line_ends.rfind(b"\n\n"), line_ends.rfind(b"\r\r")
    return max(lf + 2 if lf >= 0 else 0, cr + 1, int(line_ends.startswith(b"\n")))
