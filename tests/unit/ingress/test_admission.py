"""Who is let in."""

from hypothesis import given
from hypothesis import strategies as st

from postroom_ingress.admission import FULL, MOST_REMEMBERED, TOO_FAST, TOO_MANY, Admission, Limits, household


def test_a_full_house_refuses_until_somebody_leaves() -> None:
    admission = Admission(Limits(total=2, per_address=9))
    assert [admission.enter() for _ in range(3)] == [None, None, FULL]
    admission.leave(None)
    assert admission.enter() is None


def test_one_address_cannot_take_every_place_and_an_ipv6_network_is_one_address() -> None:
    admission = Admission(Limits(total=9, per_address=2))
    for address in ("192.0.2.1", "::ffff:192.0.2.1"):
        assert (admission.enter(), admission.admit(address, 0)) == (None, None)
    assert admission.admit("192.0.2.1", 0) == TOO_MANY
    assert admission.admit("192.0.2.2", 0) is None
    assert [admission.admit(f"2001:db8::{number}", 0) for number in (1, 2, 3)] == [None, None, TOO_MANY]
    assert admission.admit("2001:db8:0:1::1", 0) is None
    admission.leave("192.0.2.1")
    assert admission.admit("192.0.2.1", 0) is None


def test_new_connections_of_an_address_have_a_rate_that_recovers() -> None:
    admission = Admission(Limits(total=99, per_address=99, per_minute=6))
    assert [admission.admit("192.0.2.1", 0) for _ in range(7)] == [None] * 6 + [TOO_FAST]
    assert admission.admit("192.0.2.2", 0) is None
    assert admission.admit("192.0.2.1", 9.9) == TOO_FAST
    assert admission.admit("192.0.2.1", 10.1) is None


def test_memory_for_rates_is_bounded() -> None:
    admission = Admission(Limits(total=9, per_address=9, per_minute=1))
    for number in range(MOST_REMEMBERED + 500):
        admission.admit(f"2001:db8:{number // 65536:x}:{number % 65536:x}::1", 0)
    assert len(admission._buckets) == MOST_REMEMBERED


@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", None]), max_size=40))
def test_whoever_leaves_leaves_nothing_behind(addresses: list[str | None]) -> None:
    """After everybody has left the counts are as at the beginning."""
    admission = Admission(Limits(total=20, per_address=5))
    inside: list[str | None] = []
    for address in addresses:
        if admission.enter() is None:
            admitted = address is not None and admission.admit(address, 0) is None
            inside.append(address if admitted else None)
    for address in inside:
        admission.leave(address)
    assert (admission.total, dict(admission._inside)) == (0, {})


def test_households() -> None:
    assert household("fe80::1%eth0") == "fe80::/64"
    assert household("192.0.2.1") == "192.0.2.1"
