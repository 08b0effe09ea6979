"""DNS blocklists (RFC 5782): the name to ask for an address, and what an answer means. Pure.

A list is believed only if its test points are right: 127.0.0.2 is listed and 127.0.0.1 is not (section 5). Only answers in 127.0.0.0/8 count, and
127.255.255.x is an operator's way to say that it refuses our question (open resolver, too many questions), never a listing.
"""

import ipaddress
from dataclasses import dataclass
from enum import Enum

from postroom_insight.question import Answer, Asking, Question, Status

# Lists that large receivers are known to use and that may be asked without an account in small numbers.
COMMON = ("zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org", "psbl.surriel.com")
LISTED_TEST, CLEAN_TEST = "127.0.0.2", "127.0.0.1"
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
_ERRORS = ipaddress.ip_network("127.255.255.0/24")


class State(Enum):
    """BROKEN: the list fails its own test points or does not answer, so it says nothing."""

    CLEAN = "clean"
    LISTED = "listed"
    REFUSED = "refused"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Listing:
    """Of one address in one list; `codes` are the answer's addresses, `text` is the list's own explanation."""

    zone: str
    address: str
    state: State
    codes: tuple[str, ...] = ()
    text: str = ""


def name(address: str, zone: str) -> str:
    """What is asked: octets or nibbles in reverse, below the zone (sections 2.1 and 2.4)."""
    parsed = ipaddress.ip_address(address)
    return f"{parsed.reverse_pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"


def _read(answer: Answer) -> tuple[State, tuple[str, ...]]:
    if answer.status is Status.FAILED:
        return State.BROKEN, ()
    codes = tuple(value for value in answer.values if ipaddress.ip_address(value) in _LOOPBACK)
    if any(ipaddress.ip_address(code) in _ERRORS for code in codes):
        return State.REFUSED, codes
    if answer.values and not codes:
        return State.BROKEN, answer.values  # a parked or hijacked zone answers everything with some web server
    return (State.LISTED if codes else State.CLEAN), codes


def look(address: str, zone: str) -> Asking[Listing]:
    """Test points first: a list that died often lists everything or nothing."""
    for point, expected in ((LISTED_TEST, State.LISTED), (CLEAN_TEST, State.CLEAN)):
        state, codes = _read((yield Question(name(point, zone), "A")))
        if state is State.REFUSED:
            return Listing(zone, address, State.REFUSED, codes, "the list refuses questions from this resolver")
        if state is not expected:
            return Listing(zone, address, State.BROKEN, codes, f"its test point {point} is {state.value}")
    asked = name(address, zone)
    state, codes = _read((yield Question(asked, "A")))
    text = ""
    if state is State.LISTED:
        explained = yield Question(asked, "TXT")
        text = " ".join(explained.values)[:500]
    return Listing(zone, address, state, codes, text)
