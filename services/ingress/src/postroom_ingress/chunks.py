"""The content of a message that comes by BDAT (RFC 3030): no dots, no end to look for; what may not be sent on is found all the same. Pure.

A chunk may end anywhere, also between CR and LF or in the middle of a line; what a chunk ends with is kept until the next one. The last line of a
message needs no CRLF here: it is passed on as it came. With BINARYMIME nothing but the size is looked at.
"""

from postroom_ingress.data import BARE, LINE, LONG, Reader, block_fault, line_fault


class ChunkReader(Reader):
    """`feed` the octets of all chunks in order, `finish` behind the last. `fault` is the reply that the message deserves, None so far."""

    def __init__(self, limit: int, *, binary: bool) -> None:
        super().__init__(limit)
        self._binary = binary
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """The content of which is known that it may be sent on: whole lines, or everything with BINARYMIME; empty after a fault."""
        if self.fault is not None:
            return b""
        if self._binary:
            return self._pass(data)
        data = self._carry + data
        cut = data.rfind(b"\r\n") + 2
        if cut == 1:
            cut = 0
        self._carry = data[cut:]
        if len(self._carry) > LINE + 2:  # and a CR and LF at most still to come
            self.fault = line_fault(self._carry) or LONG
        block = data[:cut]
        self.fault = (block_fault(block) if block else None) or self.fault
        if self.fault is not None:
            self._carry = b""
            return b""
        return self._pass(block)

    def finish(self) -> bytes:
        """The last line, when it has no CRLF."""
        last, self._carry = self._carry, b""
        if self.fault is None and last:
            self.fault = BARE if last.endswith(b"\r") else line_fault(last) or (LONG if len(last) > LINE else None)
        return self._pass(last) if self.fault is None else b""
