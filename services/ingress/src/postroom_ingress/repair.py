"""Content on a listener that repairs line ends (policy P1): a bare CR or LF becomes CRLF before anything is hashed, signed or stored. Pure.

For clients that cannot be mended. Only CRLF.CRLF ends a message here too, and only a dot behind CRLF was stuffed, so that nothing a smuggler sends
becomes an end or a command; what leaves has CRLF alone. NUL and lines over 998 octets are refused as everywhere.
"""

import re

from postroom_ingress.data import LINE, LONG, NUL, Reader

_LINE_END = re.compile(rb"\r\n|\r|\n")
# The longest beginning of CRLF.CRLF that is not yet it.
_UNDECIDED = 4


class Repairer(Reader):
    """`feed` content in any pieces, `finish` behind the last. `fault` is the reply that the message deserves, None so far."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._held = b""  # a CR whose LF may come
        self._line = 0  # octets of the line that is not complete

    def feed(self, data: bytes) -> bytes:
        """The repaired content; empty after a fault."""
        if self.fault is not None:
            return b""
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        return self._repaired(data[: len(data) - len(self._held)])

    def finish(self) -> bytes:
        """What was held."""
        held, self._held = self._held, b""
        return self._repaired(held) if self.fault is None else b""

    def _repaired(self, data: bytes) -> bytes:
        block = _LINE_END.sub(b"\r\n", data)
        lines = block.split(b"\r\n")
        longest = max(self._line + len(lines[0]), *map(len, lines))
        self._line = len(lines[0]) + self._line if len(lines) == 1 else len(lines[-1])
        if b"\0" in block:
            self.fault = NUL
        elif longest > LINE:
            self.fault = LONG
        return self._pass(block) if self.fault is None else b""


class RepairingReader(Repairer):
    """The content of DATA: as `DataReader`, `rest` being what came behind the end."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._carry = b""
        self._line_start = True  # whether the carry begins behind CRLF
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The repaired content in `data` and what was kept from before, dots removed."""
        data = self._carry + data
        if self._line_start and data.startswith(b".\r\n"):
            return self._end(b"", data[3:])
        end = data.find(b"\r\n.\r\n")
        if end >= 0:
            return self._end(data[: end + 2], data[end + 5 :])
        cut = max(0, len(data) - _UNDECIDED)
        if data[:cut].endswith(b"\r"):
            cut -= 1
        self._carry = data[cut:]
        return self._unstuffed(data[:cut])

    def _end(self, block: bytes, rest: bytes) -> bytes:
        self.ended, self.rest, self._carry = True, rest, b""
        return self._unstuffed(block)

    def _unstuffed(self, block: bytes) -> bytes:
        if not block:
            return b""
        starts, self._line_start = self._line_start, block.endswith(b"\r\n")
        if starts and block.startswith(b"."):
            block = block[1:]
        return super().feed(block.replace(b"\r\n.", b"\r\n"))
