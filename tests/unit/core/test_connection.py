"""Lines of a connection: whole or not at all, whether they are waited for or taken as they have arrived."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom_core.connection import Connection, LineTooLong

LIMIT = 12
stream = st.lists(st.sampled_from([b"EHLO a\r\n", b"x" * 30 + b"\r\n", b"\r\n", b"a\rb\nc\r\n", b"y" * 10 + b"\r\n", b"half"]), max_size=8).map(
    b"".join
)


async def _lines(octets: bytes, cuts: list[int], *, waiting: bool) -> list[bytes | None]:
    """What a reader gets that waits for each line, or that takes what is there after each segment; None is a line that was too long."""
    connection = Connection()
    found: list[bytes | None] = []
    edges = sorted({0, *(cut % (len(octets) + 1) for cut in cuts), len(octets)})
    for begin, end in itertools.pairwise(edges):
        connection.data_received(octets[begin:end])
        while True:
            try:
                if waiting:
                    async with asyncio.timeout(0):
                        line: bytes | None = await connection.line(LIMIT)
                else:
                    line = connection.line_now(LIMIT)
            except LineTooLong:
                found.append(None)
                continue
            except TimeoutError:
                break
            if line is None:
                break
            found.append(line)
    return found


@settings(deadline=None)
@given(stream, st.lists(st.integers(0, 200), max_size=6))
def test_lines_are_the_same_however_they_arrive_and_are_taken(octets: bytes, cuts: list[int]) -> None:
    wanted = [line if len(line) + 2 <= LIMIT else None for line in octets.split(b"\r\n")[:-1]]
    assert asyncio.run(_lines(octets, cuts, waiting=True)) == wanted
    assert asyncio.run(_lines(octets, cuts, waiting=False)) == wanted


def test_a_line_that_has_not_ended_is_none_yet() -> None:
    connection = Connection()
    connection.data_received(b"EHLO a\r")
    assert connection.line_now(LIMIT) is None
    connection.data_received(b"\nNOOP\r\n")
    assert (connection.line_now(LIMIT), connection.line_now(LIMIT), connection.line_now(LIMIT)) == (b"EHLO a", b"NOOP", None)


def test_a_line_beyond_the_limit_is_told_once() -> None:
    connection = Connection()
    connection.data_received(b"z" * 40 + b"\r\nNOOP\r\n")
    with pytest.raises(LineTooLong):
        connection.line_now(LIMIT)
    assert connection.line_now(LIMIT) == b"NOOP"
