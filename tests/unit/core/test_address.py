"""RFC 5321 Mailbox, strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_core.address import BadAddress, matches, parse_mailbox


@pytest.mark.parametrize(
    "text", ["a@b", "a.b+c@d.example", '"a b"@d.example', '"a\\"b"@d.example', "x" * 64 + "@d.example", "a@xn--bcher-kva.example"]
)
def test_mailboxes(text: str) -> None:
    assert str(parse_mailbox(text)).lower() == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a@b.",
            "a@.b",
            "a..b@c",
            ".a@c",
            "a.@c",
            "a@b@c",
            "a b@c",
            "a@b c",
            "a@[127.0.0.1]",
            "a@-b.example",
            "a@b-.example",
        ),
        *("=?utf-8?q?a=0D=0Ab?=@d.example", "a\r\nRCPT TO:<x@y>@d", "a(comment)@d.example", "a@d.example(x)", "a\0@d", "ü@d.example", "a@ü.example"),
        *('"a@d.example', "@a.example:b@c.example", "x" * 65 + "@d.example", "a@" + "d" * 64 + ".example", "a@" + "d." * 130 + "example", "a\x7f@d"),
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_mailbox(text)


@given(st.text())
def test_nothing_but_bad_address_is_raised(text: str) -> None:
    try:
        mailbox = parse_mailbox(text)
    except BadAddress:
        return
    assert str(mailbox).isascii()
    assert not any(ord(c) < 32 for c in str(mailbox))


def test_patterns_match_domains_exactly_and_without_case() -> None:
    mailbox = parse_mailbox("App@News.Example.com")
    assert matches(mailbox, "*@news.example.com")
    assert matches(mailbox, "app@NEWS.example.com")
    assert not matches(mailbox, "*@example.com")
    assert not matches(parse_mailbox("a@evilnews.example.com"), "*@news.example.com")
