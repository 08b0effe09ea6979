"""How deep a message's parts are nested (RFC 2046), while its body passes by. Pure; keeps the boundaries that are open, no part of the body.

Receivers unpack what we send on, many of them recursively; a message that is nested deeper than any person makes it is meant to hurt them (A9). Only
lines that begin with "--" and header lines of parts are looked at, and of a message that is no multipart nothing.
"""

import re

# Postfix's bound. A forward of a forward nests two levels at a time; ten is rare, a hundred is an attack.
DEEPEST = 100
# What is looked at of a line; a boundary has 70 characters at most (RFC 2046 section 5.1.1).
_LONGEST = 998
_CONTENT_TYPE = re.compile(rb"content-type[ \t]*:[ \t]*(multipart/|message/rfc822|message/global)", re.IGNORECASE)
_BOUNDARY = re.compile(rb'boundary[ \t]*=[ \t]*(?:"([^"]{1,200})"|([^\s";]{1,200}))', re.IGNORECASE)
# Stands for a message inside of a part, which has no delimiter of its own: no line can be equal to it.
_MESSAGE = b"\r\n"


class NestingMeter:
    """`start` with the message's own Content-Type, `feed` the body in order; `too_deep` is the verdict so far."""

    def __init__(self) -> None:
        self._open: list[bytes] = []
        self._carry = b""
        self._field = b""  # the header field of a part that is being read
        self._in_header = False
        self._whole = False  # the part is a message: a header block of its own comes behind the blank line
        self.too_deep = False

    def start(self, content_type: bytes) -> None:
        """`content_type` is the value of the message's field, unfolded; b"" when there is none."""
        self._field = b"Content-Type: " + content_type
        self._end_of_field()
        self._in_header, self._whole = self._whole, False

    def feed(self, block: bytes) -> None:
        """Any division of the body."""
        if (not self._open and not self._in_header) or self.too_deep:
            return
        block = self._carry + block
        cut = block.rfind(b"\r\n") + 2
        if cut == 1:
            self._carry = block[:_LONGEST]
            return
        self._carry = block[cut:][:_LONGEST]
        start = 0
        while start < cut:
            if not self._in_header:  # to the next delimiter, in one search
                found = start if block.startswith(b"--", start) else block.find(b"\r\n--", start, cut)
                if found < 0:
                    return
                start = found if found == start and block.startswith(b"--", start) else found + 2
            end = block.find(b"\r\n", start, cut)
            self._line(block[start:end])
            start = end + 2

    def _line(self, line: bytes) -> None:
        if line.startswith(b"--") and self._delimiter(line[2:].rstrip(b" \t")):
            return
        if not self._in_header:
            return
        if not line:
            self._end_of_field()
            self._in_header, self._whole = self._whole, False
        elif line[:1] in (b" ", b"\t"):
            self._field = (self._field + line)[:_LONGEST]
        else:
            self._end_of_field()
            self._field = line

    def _delimiter(self, text: bytes) -> bool:
        for index in range(len(self._open) - 1, -1, -1):
            if text == self._open[index]:
                del self._open[index + 1 :]
                self._in_header, self._whole, self._field = True, False, b""
                return True
            if text == self._open[index] + b"--":
                del self._open[index:]
                self._in_header = False
                return True
        return False

    def _end_of_field(self) -> None:
        field, self._field = self._field, b""
        kind = _CONTENT_TYPE.match(field)
        if kind is None:
            return
        if kind[1].lower() != b"multipart/":
            self._whole = True
            self._enter(_MESSAGE)
            return
        boundary = _BOUNDARY.search(field)
        if boundary is not None:
            self._enter(boundary[1] or boundary[2])

    def _enter(self, boundary: bytes) -> None:
        self._open.append(boundary)
        self.too_deep = len(self._open) > DEEPEST
