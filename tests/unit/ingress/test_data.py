"""The end of data, dots and forbidden octets: the same for every division into chunks, and as a plain reading of RFC 5321 has it."""

from hypothesis import given
from hypothesis import strategies as st

from postroom_core.reply import Reply
from postroom_ingress.data import BARE, LONG, NUL, DataReader

LIMIT = 10_000
pieces = st.lists(st.sampled_from([b"\r\n", b".", b"..", b"a", b"\r", b"\n", b"\0", b"\xff", b"x" * 500, b"\r\n.\r", b"\r\n."]), max_size=30)
clean = st.lists(st.sampled_from([b"\r\n", b".", b"..", b"a", b" ", b"\xff", b"x" * 500]), max_size=30)


def read(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, Reply | None, bool]:
    reader = DataReader(LIMIT)
    content, start = b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        if reader.ended:
            break
        if cut > start:
            content += reader.feed(data[start:cut])
            start = cut
    return content, reader.rest + (data[start:] if reader.ended else b""), reader.fault, reader.ended


@given(pieces, st.lists(st.integers(0, 10_000), max_size=8))
def test_the_result_does_not_depend_on_how_the_octets_arrive(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts) + b"\r\n.\r\nNOOP\r\n"
    whole, cut = read(data, []), read(data, cuts)
    assert whole[3]
    assert cut[3]
    # With several faults, which one is told first may depend on the chunks; whether the message is refused may not.
    assert (cut[1], cut[2] is None) == (whole[1], whole[2] is None)
    assert cut[2] is not None or cut[0] == whole[0]


@given(clean, st.lists(st.integers(0, 10_000), max_size=8))
def test_clean_content_arrives_as_it_was_before_its_dots_were_stuffed(parts: list[bytes], cuts: list[int]) -> None:
    lines = b"".join(parts).split(b"\r\n")
    if any(len(line) > 997 for line in lines):
        return
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    content, rest, fault, ended = read(stuffed + b"\r\n.\r\nQUIT\r\n", cuts)
    assert (content, rest, fault, ended) == (b"\r\n".join(lines) + b"\r\n", b"QUIT\r\n", None, True)


def test_an_empty_message_ends_at_once() -> None:
    assert read(b".\r\nQUIT\r\n", []) == (b"", b"QUIT\r\n", None, True)


def test_no_smuggled_sequence_ends_a_message() -> None:
    """A1: whatever looks like an end to a lenient reader is content to us, and refused."""
    for middle in (b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\r", b"\r\n.\n", b"\r.\r", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n", b"\n\n.\n\n"):
        content, rest, fault, ended = read(b"a" + middle + b"MAIL FROM:<evil@e>\r\n.\r\nQUIT\r\n", [])
        assert ended, middle
        assert rest == b"QUIT\r\n", middle
        assert fault in (BARE, NUL), middle
        assert content == b""


def test_a_line_over_998_octets_is_refused_and_one_of_998_is_not() -> None:
    assert read(b"x" * 998 + b"\r\n.\r\n", [])[2] is None
    assert read(b"x" * 999 + b"\r\n.\r\n", [])[2] == LONG
    assert read(b"x" * 500_000 + b"\r\n.\r\nQUIT\r\n", list(range(0, 10_000, 700)))[1:] == (b"QUIT\r\n", LONG, True)


def test_memory_stays_bounded_for_a_line_without_end() -> None:
    reader = DataReader(LIMIT)
    for _ in range(1000):
        assert reader.feed(b"x" * 65536) == b""
    assert len(reader._carry) <= 1000


def test_a_message_over_the_limit_is_read_to_its_end_and_refused() -> None:
    content, rest, fault, ended = read((b"x" * 78 + b"\r\n") * 200 + b".\r\nQUIT\r\n", list(range(0, 16_000, 1000)))
    assert ended
    assert rest == b"QUIT\r\n"
    assert fault is not None
    assert fault.code == 552
    assert len(content) <= LIMIT
