"""RFC 5782: test points, what counts as listed, and names of IPv4 and IPv6 addresses."""

import pytest

from postroom_insight import blocklist
from postroom_insight.blocklist import Listing, State
from postroom_insight.question import Status

from unit.insight.zone import Zone, drive

GOOD: Zone = {("2.0.0.127.bl.example", "A"): ["127.0.0.2"]}


def look(zone: Zone, address: str = "192.0.2.7") -> Listing:
    return drive(blocklist.look(address, "bl.example"), zone)[0]


def test_a_listed_address_comes_with_codes_and_the_lists_own_words() -> None:
    zone = {**GOOD, ("7.2.0.192.bl.example", "A"): ["127.0.0.4"], ("7.2.0.192.bl.example", "TXT"): ["see https://bl.example/q"]}
    assert look(zone) == Listing("bl.example", "192.0.2.7", State.LISTED, ("127.0.0.4",), "see https://bl.example/q")


def test_an_address_without_an_entry_is_clean() -> None:
    assert look(GOOD).state is State.CLEAN


@pytest.mark.parametrize(
    "zone",
    [
        {},
        {("2.0.0.127.bl.example", "A"): ["127.0.0.2"], ("1.0.0.127.bl.example", "A"): ["127.0.0.2"]},
        {("2.0.0.127.bl.example", "A"): ["198.51.100.9"]},
        {("2.0.0.127.bl.example", "A"): Status.FAILED},
    ],
    ids=["lists-nothing", "lists-everything", "parked", "silent"],
)
def test_a_list_that_fails_its_test_points_is_not_believed(zone: Zone) -> None:
    assert look({**zone, ("7.2.0.192.bl.example", "A"): ["127.0.0.2"]}).state is State.BROKEN


@pytest.mark.parametrize("code", ["127.255.255.252", "127.255.255.254", "127.255.255.255"])
def test_an_error_code_is_never_a_listing(code: str) -> None:
    assert look({("2.0.0.127.bl.example", "A"): [code]}).state is State.REFUSED
    assert look({**GOOD, ("7.2.0.192.bl.example", "A"): [code]}).state is State.REFUSED


def test_an_answer_outside_of_127_is_no_listing() -> None:
    assert look({**GOOD, ("7.2.0.192.bl.example", "A"): ["198.51.100.9"]}).state is State.BROKEN


def test_ipv6_is_asked_by_nibbles() -> None:
    assert blocklist.name("2001:db8::1", "bl.example") == "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example"
