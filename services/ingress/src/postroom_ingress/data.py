"""The content of a message as it comes over the wire: finds its end, removes dots, notes what may not be sent on. Pure.

Works by blocks of whole lines, not by line: one split, three counts and a replace for 64 KiB. Only CRLF.CRLF ends a message (RFC 5321 section
4.1.1.4), whatever else a smuggler sends. After a violation the rest is read to its real end and dropped, so that no part of a body is ever
taken for a command.
"""

from postroom_core.reply import Reply

# RFC 5321 section 4.5.3.1.6 without CRLF.
LINE = 998
BARE = Reply(554, "5.6.0", "The message has a bare CR or a bare LF; lines must end with CRLF")
NUL = Reply(554, "5.6.0", "The message has a NUL octet")
LONG = Reply(554, "5.6.0", f"The message has a line of more than {LINE} octets")


def too_large(limit: int) -> Reply:
    """RFC 1870 section 6.3."""
    return Reply(552, "5.3.4", f"The message is larger than the limit of {limit} octets")


class Reader:
    """What every reader of content keeps: its size so far, whether it has eight-bit octets, the fault that it deserves. `limit` in octets."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0
        self.eight_bit = False
        self.fault: Reply | None = None

    def _pass(self, block: bytes) -> bytes:
        """Counts content that may be sent on, and gives it back; nothing beyond the limit."""
        self.size += len(block)
        if self.size > self._limit:
            self.fault = too_large(self._limit)
            return b""
        self.eight_bit = self.eight_bit or not block.isascii()
        return block


class DataReader(Reader):
    """`feed` what arrives until `ended`; `rest` is then what came after the end. `fault` is the reply that the message deserves, None so far."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._carry = b""
        self._line_start = True  # whether the carry begins a line
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The content in `data` and what was kept from before: whole lines, dots removed; empty after a fault."""
        data = self._carry + data
        if self._line_start and data.startswith(b".\r\n"):
            return self._end(b"", data[3:])
        end = data.find(b"\r\n.\r\n")
        if end >= 0:
            return self._end(data[: end + 2], data[end + 5 :])
        # Keep what may be the beginning of the end or of a violation: the line that is not complete yet.
        cut = data.rfind(b"\r\n") + 2
        if cut == 1:
            self._keep_incomplete(data)
            return b""
        self._carry = data[cut:]
        content = self._content(data[:cut])
        self._line_start = True
        if len(self._carry) > LINE + 2:
            self._keep_incomplete(self._carry)
        return content

    def _keep_incomplete(self, data: bytes) -> None:
        """A line without an end so far. Beyond the limit only its last octets are kept, which may be half of CRLF or of a dot line."""
        if len(data) > LINE + 2:
            self.fault = self.fault or line_fault(data) or LONG
            data, self._line_start = data[-4:], False
        self._carry = data

    def _end(self, block: bytes, rest: bytes) -> bytes:
        self.ended, self.rest, self._carry = True, rest, b""
        return self._content(block) if block else b""

    def _content(self, block: bytes) -> bytes:
        if self.fault is None:
            self.fault = block_fault(block)
        if self.fault is not None:
            return b""
        if b"\r\n." in block or block.startswith(b"."):
            if self._line_start and block.startswith(b"."):
                block = block[1:]
            block = block.replace(b"\r\n.", b"\r\n")
        return self._pass(block)


def block_fault(block: bytes) -> Reply | None:
    """What forbids to send on a block of whole lines."""
    lines = block.split(b"\r\n")
    if block.count(b"\n") != len(lines) - 1 or block.count(b"\r") != len(lines) - 1:
        return BARE
    if b"\0" in block:
        return NUL
    return LONG if max(map(len, lines)) > LINE else None


def line_fault(data: bytes) -> Reply | None:
    """The same of an incomplete line; a CR at its very end may still get its LF."""
    if b"\n" in data or b"\r" in data[:-1]:
        return BARE
    return NUL if b"\0" in data else None
