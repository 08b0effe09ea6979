"""How many connections there are, in all and by key, counted together by all ingress processes of a machine or pod. Pure: memory in, numbers out.

The memory is shared; each process has a row of its own, which nobody else writes, and adds all rows up. So nothing is locked, and what a process
that died has counted goes when its successor clears the row. Two processes that look at the same moment may both let one in: a limit can be passed
by as many connections as there are further processes, never by more.

Keys are not kept, only counted, in a count-min sketch: DEPTH cells for each key, in tables of their own, of which the smallest counts. Memory is
the same whatever comes; with a thousand keys one in 70,000 is taken for more than it is. A secret of the memory keeps anybody from choosing keys
that meet.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence

DEPTH, SLOTS = 4, 2**14
_SECRET = 16
_WORD = 8
# A row: the number of connections, then for each cell how many are open and the arrivals of two minutes.
_ROW = 1 + 2 * DEPTH * SLOTS
_MOST_ARRIVALS = 0xFFFF


def size(processes: int) -> int:
    """Octets of the memory: 1 MiB for each process, of which only what is used is real."""
    return _SECRET + processes * _ROW * _WORD


class Headcount:
    """`memory` has `size` octets: a random secret, then zeros. `row` is this process's, counted from 0."""

    def __init__(self, memory: bytearray | memoryview, row: int = 0) -> None:
        octets = memoryview(memory)
        self._secret = bytes(octets[:_SECRET])
        rows = octets[_SECRET:]
        octets_of_row = _ROW * _WORD
        rows[row * octets_of_row : (row + 1) * octets_of_row] = bytes(octets_of_row)
        words = rows.cast("Q")
        self._rows = [words[start : start + _ROW] for start in range(0, len(words), _ROW)]
        self._own = self._rows[row]

    def __repr__(self) -> str:
        return f"Headcount(own={self.own}, total={self.total}, processes={len(self._rows)})"

    @property
    def own(self) -> int:
        """Connections of this process."""
        return self._own[0]

    @property
    def total(self) -> int:
        """Connections of all."""
        return sum(row[0] for row in self._rows)

    def enter(self) -> None:
        self._own[0] += 1

    def leave(self) -> None:
        self._own[0] -= 1

    def held(self, key: str) -> int:
        """How often `key` is held now."""
        return min(sum(row[cell] for row in self._rows) for cell in self._cells(key))

    def hold(self, key: str) -> None:
        """Until `release`."""
        for cell in self._cells(key):
            self._own[cell] += 1

    def release(self, key: str) -> None:
        for cell in self._cells(key):
            self._own[cell] -= 1

    def arrivals(self, key: str, now: float) -> float:
        """How many of `key` were noted in the last minute, as if those of a clock's minute were evenly spread. `now` in seconds, monotonic."""
        minute, part = divmod(now, 60.0)
        return min(sum(_lately(row[cell + 1], int(minute), part / 60) for row in self._rows) for cell in self._cells(key))

    def arrived(self, key: str, now: float) -> None:
        """Notes an arrival."""
        minute = int(now // 60)
        for cell in self._cells(key):
            of, before, current = _unpacked(self._own[cell + 1])
            if of != minute:
                before, current = (current if of == minute - 1 else 0), 0
            self._own[cell + 1] = minute << 32 | before << 16 | min(current + 1, _MOST_ARRIVALS)

    def _cells(self, key: str) -> Iterator[int]:
        """The places of the key's cells in every row."""
        digest = hashlib.blake2b(key.encode(), digest_size=4 * DEPTH, key=self._secret).digest()
        numbers: Sequence[int] = struct.unpack(f"<{DEPTH}I", digest)
        return (1 + 2 * (table * SLOTS + number % SLOTS) for table, number in enumerate(numbers))


def _unpacked(word: int) -> tuple[int, int, int]:
    return word >> 32, word >> 16 & 0xFFFF, word & 0xFFFF


def _lately(word: int, minute: int, part: float) -> float:
    of, before, current = _unpacked(word)
    if of == minute:
        return before * (1 - part) + current
    return current * (1 - part) if of == minute - 1 else 0.0
