"""The depth of nesting, for every division of the body."""

import email.message
from email.message import EmailMessage
from email.policy import SMTP

from hypothesis import given
from hypothesis import strategies as st

from postroom_ingress.mime import DEEPEST, NestingMeter


def nested(levels: int) -> tuple[bytes, bytes]:
    """(Content-Type, body) of multiparts inside of each other, each with a text beside it."""
    body = b"text\r\n"
    kind = b"text/plain"
    for level in range(levels):
        mark = b"b%d" % level
        body = b"--%s\r\n\r\n--not\r\n--%s\r\nContent-Type: %s\r\n\r\n%s\r\n--%s--\r\n" % (mark, mark, kind, body, mark)
        kind = b'multipart/mixed;\r\n\tboundary="%s"' % mark
    return kind.replace(b"\r\n", b""), body


def measured(kind: bytes, body: bytes, cuts: list[int]) -> tuple[bool, int]:
    meter, start = NestingMeter(), 0
    meter.start(kind)
    for cut in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        meter.feed(body[start:cut])
        start = cut
    return meter.too_deep, len(meter._open)


@given(st.integers(0, 20), st.lists(st.integers(0, 5000), max_size=8))
def test_every_part_that_is_opened_is_closed_however_it_arrives(levels: int, cuts: list[int]) -> None:
    assert measured(*nested(levels), cuts) == (False, 0)


def test_a_hundred_levels_pass_and_more_do_not() -> None:
    assert not measured(*nested(DEEPEST), [1000, 5000])[0]
    assert measured(*nested(DEEPEST + 1), [1000, 5000])[0]


def test_messages_inside_of_messages_count_without_any_boundary() -> None:
    for levels, too_deep in ((DEEPEST - 1, False), (DEEPEST + 1, True)):
        body = b"Content-Type: message/rfc822\r\n\r\n" * levels + b"\r\nx\r\n"
        assert measured(b"message/rfc822", body, [])[0] == too_deep


def test_many_parts_beside_each_other_are_not_deep() -> None:
    part = b"--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"
    assert measured(b"multipart/mixed; boundary=a", part * 500 + b"--a--\r\n", []) == (False, 0)
    quoted = b"Content-Type: multipart/mixed; boundary=x\r\n" * 500
    assert measured(b"multipart/mixed; boundary=a", b"--a\r\nContent-Type: text/plain\r\n\r\n" + quoted + b"--a--\r\n", []) == (False, 0)


def test_what_the_library_makes_is_understood() -> None:
    inner = EmailMessage(policy=SMTP)
    inner.set_content("inner")
    inner.add_attachment(b"\0" * 1000, maintype="application", subtype="octet-stream")
    outer = EmailMessage(policy=SMTP)
    outer.set_content("outer")
    outer.add_attachment(inner)
    head, _, body = outer.as_bytes().partition(b"\r\n\r\n")
    assert isinstance(outer, email.message.Message)
    assert measured(str(outer["Content-Type"]).encode(), body, [50]) == (False, 0)
    assert b"multipart" in head


def test_plain_messages_cost_nothing_and_memory_is_bounded() -> None:
    meter = NestingMeter()
    meter.start(b"")
    meter.feed(b"--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n")
    assert not meter._open
    meter.start(b"multipart/mixed; boundary=a")
    for _ in range(50):
        meter.feed(b"x" * 65536)
    assert len(meter._carry) <= 998


@given(st.binary(max_size=300), st.lists(st.sampled_from([b"--a", b"--a--", b"\r\n", b"Content-Type: multipart/x; boundary=a", b" "]), max_size=30))
def test_any_octets_pass(kind: bytes, parts: list[bytes]) -> None:
    measured(kind, b"".join(parts), [3, 30])
    measured(b"multipart/mixed; boundary=a", b"".join(parts) + kind, [3, 30])
