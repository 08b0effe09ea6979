"""The streaming body hash is the plain reading of RFC 6376 section 3.4.4, for every body and every division of it."""

import hashlib
import re

from hypothesis import example, given
from hypothesis import strategies as st

from postroom_core.bodyhash import RelaxedBodyHash

octets = st.lists(st.sampled_from([b"\r\n", b"\r\n", b"\r", b"\n", b" ", b"\t", b"a", b".", b"\0", b"\xff", b"xy z"]), max_size=40).map(b"".join)


def plain(body: bytes) -> bytes:
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


@example(b"\r\n\r\r", [])
@given(octets, st.lists(st.integers(0, 200), max_size=6))
def test_the_hash_is_that_of_the_canonical_body_however_it_arrives(body: bytes, cuts: list[int]) -> None:
    made, start = RelaxedBodyHash(), 0
    for cut in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        made.feed(body[start:cut])
        start = cut
    assert made.digest() == hashlib.sha256(plain(body)).digest()
    assert made.digest() == made.digest()


def test_a_last_line_without_crlf_is_hashed_as_if_it_had_one() -> None:
    with_end, without = RelaxedBodyHash(), RelaxedBodyHash()
    with_end.feed(b"hello\r\n")
    without.feed(b"hello")
    assert with_end.digest() == without.digest()
