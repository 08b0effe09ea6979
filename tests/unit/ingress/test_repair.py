"""Listeners that repair line ends: the same for every division, CRLF alone leaves, and nothing smuggled ends a message."""

import re

from hypothesis import given
from hypothesis import strategies as st

from postroom_core.reply import Reply
from postroom_ingress.data import LONG, NUL, DataReader
from postroom_ingress.repair import Repairer, RepairingReader

LIMIT = 100_000
pieces = st.lists(st.sampled_from([b"\r\n", b".", b"..", b"a", b"\r", b"\n", b"\xff", b"x" * 300, b"\r\n.\r", b"\r\n.", b"\n.\n"]), max_size=30)
cutting = st.lists(st.integers(0, 10_000), max_size=8)


def read(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, Reply | None, bool]:
    reader, content, start = RepairingReader(LIMIT), b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        if reader.ended:
            break
        content += reader.feed(data[start:cut])
        start = cut
    return content, reader.rest + (data[start:] if reader.ended else b""), reader.fault, reader.ended


@given(pieces, cutting)
def test_the_result_does_not_depend_on_how_the_octets_arrive(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts) + b"\r\n.\r\nNOOP\r\n"
    whole, cut = read(data, []), read(data, cuts)
    assert whole[3]
    assert (cut[1], cut[2] is None) == (whole[1], whole[2] is None)
    assert cut[2] is not None or cut[0] == whole[0]
    assert b"\n" not in whole[0].replace(b"\r\n", b"")
    assert b"\r" not in whole[0].replace(b"\r\n", b"")


@given(pieces, cutting)
def test_it_ends_where_a_strict_reader_ends_and_good_content_stays_as_it_is(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts) + b"\r\n.\r\nNOOP\r\n"
    strict = DataReader(LIMIT)
    content = strict.feed(data)
    repaired = read(data, cuts)
    assert repaired[1] == strict.rest
    assert strict.fault is not None or repaired[:3:2] == (content, None)


def test_what_a_smuggler_takes_for_an_end_is_content() -> None:
    for middle in (b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\r", b"\r\n.\n", b"\r\r\n.\r\r\n"):
        content, rest, fault, ended = read(b"a" + middle + b"MAIL FROM:<evil@e>\r\n.\r\nQUIT\r\n", [])
        assert (rest, fault, ended) == (b"QUIT\r\n", None, True), middle
        assert b"MAIL FROM" in content


def test_lines_and_nul_are_refused_as_everywhere() -> None:
    assert read(b"x" * 998 + b"\n" + b"y" * 998 + b"\r\n.\r\n", [500, 1500])[2] is None
    assert read(b"x" * 999 + b"\n\r\n.\r\n", [500])[2] == LONG
    assert read(b"a\0\r\n.\r\n", [])[2] == NUL


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"."]), max_size=20).map(b"".join), cutting)
def test_chunks_are_repaired_over_their_edges(data: bytes, cuts: list[int]) -> None:
    repairer, content, start = Repairer(LIMIT), b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        content += repairer.feed(data[start:cut])
        start = cut
    assert content + repairer.finish() == re.sub(rb"\r\n|\r|\n", b"\r\n", data)
