"""The header gate: what parses keeps its bytes, and what verifiers could read differently is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_core import headers
from postroom_core.headers import MalformedHeader, check, from_address, parse

lines = st.lists(
    st.sampled_from([b"From: a@d.example", b"X: y", b" folded", b"\tfolded", b"Subject:", b"X:  two  ", b"bad", b"From : x", b" ", b""]), max_size=8
)


@given(lines)
def test_fields_join_back_to_the_same_octets(parts: list[bytes]) -> None:
    block = b"".join(part + b"\r\n" for part in parts)
    try:
        fields = parse(block)
    except MalformedHeader:
        return
    assert b"".join(field.raw for field in fields) == block


REFUSED = (
    b"no colon\r\n",
    b"From : a@d.example\r\n",
    b" folded first\r\n",
    b"From a@d.example Tue\r\n",
    b": empty\r\n",
    b"X\x80: y\r\n",
    b"X: bare\ncr\r\n",
    b"X: \0\r\n",
    b"Subject:\x0b\r\n",
    b"Subject: x\x0c\r\n",
    b"X: " + b"y" * 1000 + b"\r\n",
    b"X: y\r\n \t\r\n",
    b"X: y",
)


@pytest.mark.parametrize("block", REFUSED)
def test_what_verifiers_read_differently_is_refused(block: bytes) -> None:
    with pytest.raises(MalformedHeader):
        parse(block)


@pytest.mark.parametrize(
    "name", [b"From", b"Date", b"Sender", b"Reply-To", b"To", b"Cc", b"Message-ID", b"Subject", b"Content-Type", b"MIME-Version"]
)
def test_a_second_singleton_is_refused(name: bytes) -> None:
    base = b"" if name == b"From" else b"From: a@d.example\r\n"
    with pytest.raises(MalformedHeader):
        check(parse(base + name + b": x\r\n" + name.lower() + b": y\r\n"))


@pytest.mark.parametrize(
    "value", ["", "a@d.example <b@e.example>", "a(c)@d.example", "Undisclosed", "=?utf-8?q?a=40b?=@d.example", "A <a@d.example> (x@y)"]
)
def test_a_from_that_could_be_somebody_elses_is_refused(value: str) -> None:
    with pytest.raises(MalformedHeader):
        fields = parse(f"From: {value}\r\n".encode())
        check(fields)
        from_address(fields)


@pytest.mark.parametrize(
    "value", ["a@D.Example", "A <a@d.example>", '"x@y, z" <a@d.example>', "=?utf-8?q?J=C3=BCrgen?= <a@d.example>", "Jürgen <a@d.example>"]
)
def test_an_ordinary_from_is_read(value: str) -> None:
    assert from_address(parse(f"From: {value}\r\n".encode())) == (("a", "d.example"),)


words = st.lists(st.text("abcXYZ019!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=6), max_size=3)
specs = st.builds(
    lambda local, domain: f"{'.'.join(local)}@{'.'.join(domain)}",
    st.lists(st.text("abcXYZ09!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=5), min_size=1, max_size=3),
    st.lists(st.text("abcXYZ09-", min_size=1, max_size=5), min_size=1, max_size=3),
)


@given(words, specs, st.booleans())
def test_the_short_way_to_read_from_answers_like_the_long_one(display: list[str], spec: str, bracketed: bool) -> None:
    value = " ".join([*display, f"<{spec}>"]) if bracketed or display else spec
    fields = parse(f"From: {value}\r\n".encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "_PLAIN_FROM", re.compile("(?!)"))
        try:
            long_way: object = from_address(fields)
        except MalformedHeader:
            long_way = MalformedHeader
    # The library refuses some plain ones (it decodes what looks like an encoded-word); it never reads another address.
    assert from_address(fields) == long_way or long_way is MalformedHeader
