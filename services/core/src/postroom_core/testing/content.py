"""Message content as a strict receiver sees it between DATA and the dot: finds the end, takes the dots out, names what is not allowed.

Pure functions over bytes; fast enough for benchmarks (no loop per line). RFC 5321 sections 2.3.8, 4.5.2, 4.5.3.1.6.
"""

import re

END = b"\r\n.\r\n"
_UNSTUFFED = re.compile(rb"\n\.[^.]")
_LONGEST_LINE = 998


def unstuff(wire: bytes) -> bytes:
    """Content without the transparency dots. `wire` starts with the CRLF of the line before it and ends with the CRLF of its last line."""
    return (wire.replace(b"\r\n.", b"\r\n") if b"\r\n." in wire else wire)[2:]


def violations(wire: bytes, *, eight_bit: bool) -> list[str]:
    """What in `wire` (see unstuff) no client may send. `eight_bit` says whether BODY=8BITMIME allowed octets above 127."""
    found = []
    pairs = wire.count(b"\r\n")
    if wire.count(b"\n") != pairs:
        found.append("bare LF in content")
    if wire.count(b"\r") != pairs:
        found.append("bare CR in content")
    if b"\0" in wire:
        found.append("NUL in content")
    if not eight_bit and not wire.isascii():
        found.append("octets above 127 without BODY=8BITMIME")
    if _UNSTUFFED.search(wire):
        found.append("a dot at the start of a line was not doubled")
    if _has_long_line(wire):
        found.append(f"content line over {_LONGEST_LINE} octets")
    return found


def _has_long_line(wire: bytes) -> bool:
    position, size = 0, len(wire)
    while size - position > _LONGEST_LINE + 2:
        end = wire.rfind(b"\n", position, position + _LONGEST_LINE + 2)  # the last line end in reach: a step per KB, not per line
        if end < 0:
            return True
        position = end + 1
    return False
