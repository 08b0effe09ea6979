"""Who is let in."""

from hypothesis import given
from hypothesis import strategies as st

from postroom_ingress.admission import FULL, TOO_FAST, TOO_MANY, Admission, Limits, household
from postroom_ingress.headcount import Headcount, size


def let_in(total: int, per_address: int, per_minute: int = 0) -> Admission:
    return Admission(Limits(total, per_address, per_minute), Headcount(bytearray(size(1))))


def test_a_full_house_refuses_until_somebody_leaves() -> None:
    admission = let_in(total=2, per_address=9)
    assert [admission.enter() for _ in range(3)] == [None, None, FULL]
    admission.leave(None)
    assert admission.enter() is None


def test_one_address_cannot_take_every_place_and_an_ipv6_network_is_one_address() -> None:
    admission = let_in(total=9, per_address=2)
    for address in ("192.0.2.1", "::ffff:192.0.2.1"):
        assert (admission.enter(), admission.admit(address, 0)) == (None, None)
    assert admission.admit("192.0.2.1", 0) == TOO_MANY
    assert admission.admit("192.0.2.2", 0) is None
    assert [admission.admit(f"2001:db8::{number}", 0) for number in (1, 2, 3)] == [None, None, TOO_MANY]
    assert admission.admit("2001:db8:0:1::1", 0) is None
    admission.leave("192.0.2.1")
    assert admission.admit("192.0.2.1", 0) is None


def test_new_connections_of_an_address_have_a_rate_that_recovers() -> None:
    admission = let_in(total=99, per_address=99, per_minute=6)
    assert [admission.admit("192.0.2.1", 0) for _ in range(7)] == [None] * 6 + [TOO_FAST]
    assert admission.admit("192.0.2.2", 0) is None
    assert admission.admit("192.0.2.1", 69.9) == TOO_FAST
    assert admission.admit("192.0.2.1", 70.1) is None, "a sixth of the six is older than a minute"
    assert admission.admit("192.0.2.1", 70.2) == TOO_FAST
    assert [admission.admit("192.0.2.1", 90.1) for _ in range(3)] == [None, None, TOO_FAST]


@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", None]), max_size=40))
def test_whoever_leaves_leaves_nothing_behind(addresses: list[str | None]) -> None:
    """After everybody has left the counts are as at the beginning."""
    admission = let_in(total=20, per_address=5)
    inside: list[str | None] = []
    for address in addresses:
        if admission.enter() is None:
            admitted = address is not None and admission.admit(address, 0) is None
            inside.append(address if admitted else None)
    for address in inside:
        admission.leave(address)
    assert (admission.total, [admission.admit("192.0.2.1", 0) for _ in range(6)]) == (0, [None] * 5 + [TOO_MANY])


def test_households() -> None:
    assert household("fe80::1%eth0") == "fe80::/64"
    assert household("192.0.2.1") == "192.0.2.1"
