"""MTA-STS: records, policies, hosts, and when to fetch (RFC 8461)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_delivery import sts
from postroom_delivery.sts import BadPolicy, Kept, Mode, Policy

GOOD = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1; id=1; x=y"], "1"),
        (["something else", "v=STSv1; id=1;"], "1"),
        (["v=STSv1; id=1;", "v=STSv1; id=2;"], None),
        (["v=STSv1"], None),
        (["v=STSv1; id="], None),
        (["v=STSv1; id=a-b"], None),
        (["v=STSv1; id=" + "x" * 33], None),
        (["v=STSv2; id=1"], None),
        (["v=STSv1; id=1; id=2"], None),
        ([], None),
    ],
)
def test_a_domain_has_a_policy_when_it_has_exactly_one_valid_record(texts: list[str], found: str | None) -> None:
    assert sts.record_id(texts) == found


def test_a_policy_is_read_with_either_line_end_and_unknown_keys() -> None:
    expected = Policy(Mode.ENFORCE, ("mail.example.com", "*.example.net"), 604800)
    assert sts.parse(GOOD) == expected
    assert sts.parse(GOOD.replace("\r\n", "\n")) == expected
    assert sts.parse(GOOD + "future: thing\r\n") == expected
    assert sts.parse("version: STSv1\nmode: none\nmax_age: 0") == Policy(Mode.NONE, (), 0)


def test_a_max_age_beyond_a_year_means_a_year() -> None:
    assert sts.parse(GOOD.replace("604800", "9999999999")).max_age == 31_557_600


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.replace("STSv1", "STSv2"),
        GOOD.replace("enforce", "maybe"),
        GOOD.replace("max_age: 604800", ""),
        GOOD.replace("604800", "-1"),
        GOOD.replace("604800", "²"),
        GOOD.replace("mx:", "nx:"),
        GOOD.replace("mail.example.com", "mail example"),
        GOOD.replace("*.example.net", "a.*.example.net"),
        GOOD.replace("*.example.net", "*"),
        GOOD + "mx: a.example\n" * 300,
        "<html>404</html>",
    ],
)
def test_a_policy_that_is_not_whole_is_none(text: str) -> None:
    with pytest.raises(BadPolicy):
        sts.parse(text)


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com.", True),
        ("other.example.com", False),
        ("a.example.net", True),
        ("a.b.example.net", False),
        ("example.net", False),
        ("xexample.net", False),
    ],
)
def test_a_wildcard_stands_for_exactly_one_label(host: str, named: bool) -> None:
    assert sts.parse(GOOD).names(host) is named


@given(st.text())
def test_whatever_a_policy_host_sends_is_a_policy_or_a_bad_policy(text: str) -> None:
    """Invariant: no other exception, whatever strangers send."""
    for candidate in (text, GOOD + text):
        with contextlib.suppress(BadPolicy):
            assert sts.parse(candidate).max_age >= 0
    sts.record_id([text, f"v=STSv1;{text}"])


def test_a_kept_policy_is_fetched_again_for_another_id_after_a_day_and_at_its_end() -> None:
    kept = Kept(sts.parse(GOOD), "1", GOOD, 0)
    assert kept.is_current("1", 86_399_999)
    assert not kept.is_current("2", 1)
    assert not kept.is_current("1", 86_400_000)
    assert kept.until == 604_800_000
    assert not Kept(sts.parse(GOOD.replace("604800", "60")), "1", GOOD, 0).is_current("1", 60_000)
