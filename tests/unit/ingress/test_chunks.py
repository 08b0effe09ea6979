"""The content of BDAT chunks: the same result for every division, and nothing that may not be sent on."""

from hypothesis import given
from hypothesis import strategies as st

from postroom_ingress.chunks import ChunkReader
from postroom_ingress.data import BARE, LONG, NUL

LIMIT = 10_000
pieces = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"\r", b"\n", b"\0", b"\xff", b"x" * 500]), max_size=30).map(b"".join)
clean = st.lists(st.sampled_from([b"\r\n", b".", b"\r\n.\r\n", b"a", b"\xff", b"x" * 400]), max_size=20).map(b"".join)


def read(data: bytes, cuts: list[int], *, binary: bool = False) -> tuple[bytes, ChunkReader]:
    reader = ChunkReader(LIMIT, binary=binary)
    content, start = b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        content += reader.feed(data[start:cut])
        start = cut
    return content + reader.finish(), reader


def faulty(data: bytes) -> bool:
    lines = data.split(b"\r\n")
    return len(data) > LIMIT or any(b"\r" in line or b"\n" in line or b"\0" in line or len(line) > 998 for line in lines)


@given(pieces, st.lists(st.integers(0, 10_000), max_size=8))
def test_content_passes_unchanged_or_is_refused_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    content, reader = read(data, cuts)
    assert (reader.fault is not None) == faulty(data)
    assert reader.fault is not None or content == data


@given(pieces, st.lists(st.integers(0, 10_000), max_size=8))
def test_binary_content_passes_whatever_it_is(data: bytes, cuts: list[int]) -> None:
    content, reader = read(data[:LIMIT], cuts, binary=True)
    assert (content, reader.fault) == (data[:LIMIT], None)


def test_each_fault_has_its_reply() -> None:
    for data, fault in ((b"a\nb\r\n", BARE), (b"a\r", BARE), (b"\0\r\n", NUL), (b"x" * 999, LONG), (b"x" * 5000, LONG), (b"x" * 999 + b"\r\n", LONG)):
        assert read(data, [])[1].fault == fault
    assert read(b"x" * 998 + b"\r\n" + b"y" * 998, [999])[1].fault is None
    too_much = read((b"x" * 78 + b"\r\n") * 200, [])[1].fault
    assert too_much is not None
    assert too_much.code == 552


def test_memory_stays_bounded_for_a_line_without_end() -> None:
    reader = ChunkReader(LIMIT, binary=False)
    for _ in range(100):
        assert reader.feed(b"x" * 65536) == b""
    assert len(reader._carry) <= 1000
