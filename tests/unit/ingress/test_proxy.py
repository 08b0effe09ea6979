"""The PROXY protocol: both versions, however the octets arrive, and nothing that only looks like it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_ingress.proxy import LONGEST_2, SIGNATURE, BadHeader, crc32c, need, source

V4 = bytes([192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0, 25])
V6 = bytes.fromhex("20010db800000000000000000000000120010db8000000000000000000000002") + b"\x12\x34\x00\x19"


def version_2(family: int, block: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(block)) + block


def with_crc(family: int, block: bytes, change: int = 0) -> bytes:
    zero = version_2(family, block + b"\x03\x00\x04" + bytes(4))
    return zero[:-4] + struct.pack(">I", crc32c(zero) ^ change)


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 25\r\n", "192.0.2.1"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4660 25\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 4660 25\r\n", "192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ff:ff 1 2 3\r\n", None),
    (version_2(0x11, V4), "192.0.2.1"),
    (version_2(0x21, V6), "2001:db8::1"),
    (version_2(0x11, V4 + b"\x04\x00\x03abc" + b"\xea\x00\x00"), "192.0.2.1"),
    (with_crc(0x11, V4), "192.0.2.1"),
    (with_crc(0x21, V6 + b"\x02\x00\x01x"), "2001:db8::1"),
    (version_2(0x00, b"", command=0x20), None),
    (version_2(0x77, b"whatever", command=0x20), None),
    (version_2(0x00, b""), None),
    (version_2(0x31, bytes(216)), None),
]


@pytest.mark.parametrize(("header", "address"), GOOD)
def test_a_header_is_read_to_its_last_octet_and_no_further(header: bytes, address: str | None) -> None:
    """Whoever asks `need` before each read, and reads no more, ends exactly behind the header."""
    stream, data = header + b"EHLO x\r\n", b""
    while missing := need(data):
        assert len(data) + missing <= len(header)
        data += stream[len(data) : len(data) + 1]
    assert data == header
    assert source(data).address == address


BAD = [
    *(b"EHLO x\r\n", b"\x16\x03\x01\x02\x00\x01", b"PROXX", b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n" + b"x" * 100),
    *(b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", b"PROXY TCP4 ::1 ::1 1 1\r\n", b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n"),
    *(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n"),
    *(b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", b"PROXY \r\n" + b"x" * 100, b"PROXY " + b"x" * 200),
    *(version_2(0x12, V4), version_2(0x11, V4[:-1]), version_2(0x21, V4), version_2(0x31, V4), version_2(0x11, V4, command=0x11)),
    *(version_2(0x11, V4, command=0x22), version_2(0x11, V4 + b"\x04\x00"), version_2(0x11, V4 + b"\x04\x00\x04abc")),
    *(with_crc(0x11, V4, change=1), version_2(0x11, V4 + b"\x03\x00\x03abc"), version_2(0x11, bytes(LONGEST_2 + 1))),
]


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(BadHeader):
        read(data)


def read(stream: bytes) -> str | None:
    data = b""
    while missing := need(data):
        assert 0 < missing <= LONGEST_2
        data += stream[len(data) : len(data) + missing]
        assert len(data) <= LONGEST_2 + 16
        if len(data) >= len(stream) and need(data):
            raise BadHeader("it ended")
    return source(data).address


@given(st.binary(max_size=300) | st.binary(max_size=60).map(SIGNATURE.__add__) | st.binary(max_size=120).map(b"PROXY TCP4 ".__add__))
def test_nothing_but_bad_header_is_raised(stream: bytes) -> None:
    try:
        read(stream)
    except BadHeader:
        return


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
