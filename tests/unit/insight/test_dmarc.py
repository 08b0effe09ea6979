"""The DNS tree walk of RFC 9989 and what follows from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_insight import dmarc
from postroom_insight.question import Status

from unit.insight.zone import Zone, drive


def walk(domain: str, zone: Zone) -> dmarc.Walk:
    return drive(dmarc.walk(domain), zone)[0]


def records(**texts: str) -> Zone:
    return {(f"_dmarc.{name.replace('__', '-').replace('_', '.')}", "TXT"): [text] for name, text in texts.items()}


def test_a_long_name_is_asked_eight_times_and_jumps_to_seven_labels() -> None:
    _, asked = drive(dmarc.walk("a.b.c.d.e.f.g.h.i.j.mail.example.com"), {})
    assert len(asked) == dmarc.MOST_QUERIES
    assert asked[:2] == ["_dmarc.a.b.c.d.e.f.g.h.i.j.mail.example.com", "_dmarc.g.h.i.j.mail.example.com"]
    assert asked[-1] == "_dmarc.com"


@given(st.integers(1, 40))
def test_no_name_costs_more_than_eight_questions(labels: int) -> None:
    steps = dmarc.steps(".".join("x" * labels))
    assert len(steps) <= dmarc.MOST_QUERIES and len(set(steps)) == len(steps)


def test_the_organizational_domain_is_the_highest_name_with_a_record() -> None:
    found = walk("a.mail.example.com", records(a_mail_example_com="v=DMARC1; p=none", example_com="v=DMARC1; p=reject; sp=quarantine"))
    assert found.organizational == "example.com"
    assert (found.policy, found.policy_record and found.policy_record.domain) == ("none", "a.mail.example.com")


def test_a_name_without_its_own_record_gets_the_subdomain_policy_of_the_organizational_domain() -> None:
    found = walk("a.mail.example.com", records(example_com="v=DMARC1; p=reject; sp=quarantine"))
    assert found.policy == "quarantine"
    assert walk("a.example.com", records(example_com="v=DMARC1; p=reject")).policy == "reject"


def test_psd_n_ends_the_walk_and_psd_y_puts_the_organization_one_label_below() -> None:
    found, asked = drive(dmarc.walk("a.b.example.com"), records(b_example_com="v=DMARC1; p=none; psd=n", example_com="v=DMARC1; p=reject"))
    assert (found.organizational, asked[-1]) == ("b.example.com", "_dmarc.b.example.com")
    found = walk("mail.bank.example", records(example="v=DMARC1; p=reject; psd=y"))
    assert found.organizational == "bank.example"
    assert found.policy == "reject"


def test_relaxed_alignment_is_by_organizational_domain_and_strict_by_name() -> None:
    zone = records(example_com="v=DMARC1; p=none", other_com="v=DMARC1; p=none")
    author, bounce, other = (walk(name, zone) for name in ("example.com", "bounce.example.com", "other.com"))
    assert dmarc.aligned(author, bounce, strict=False)
    assert not dmarc.aligned(author, bounce, strict=True)
    assert not dmarc.aligned(author, other, strict=False)


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], "2 DMARC records"),
        (["v=DMARC1; p=sometimes"], "no policy"),
        (["v=DMARC1; p"], "cannot be read"),
    ],
)
def test_what_is_no_valid_record_counts_for_nothing_and_is_told(texts: list[str], fault: str) -> None:
    found = walk("example.com", {("_dmarc.example.com", "TXT"): texts})
    assert found.policy_record is None
    assert fault in found.broken[0]


def test_other_txt_records_are_no_fault_and_silence_of_dns_is_told() -> None:
    zone: Zone = {("_dmarc.example.com", "TXT"): ["hello", "v=DMARC1; p=none"], ("_dmarc.com", "TXT"): Status.FAILED}
    found = walk("example.com", zone)
    assert (found.broken, found.policy, found.failed) == ((), "none", "_dmarc.com")
