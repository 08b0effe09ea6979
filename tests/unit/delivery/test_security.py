"""The table of who asks for what, and what a host must give then."""

import hashlib

import pytest

from postroom_core.documents import TlsPolicy
from postroom_delivery.dane import Tlsa
from postroom_delivery.security import Demand, Domain, Level, Requirement, Unfit, demand_of, require, serves, told
from postroom_delivery.spool.model import MailOptions
from postroom_delivery.sts import Mode, Policy

GOOD = Tlsa(3, 1, 1, hashlib.sha256(b"key").digest())
BAD = Tlsa(0, 0, 1, hashlib.sha256(b"key").digest())
ENFORCE, TESTING, NONE = (Policy(mode, ("mx.test",), 60) for mode in (Mode.ENFORCE, Mode.TESTING, Mode.NONE))


def required(
    policy: Policy | None = None,
    tlsa: tuple[Tlsa, ...] = (),
    *,
    rule: TlsPolicy = "Opportunistic",
    demand: Demand = Demand.NORMAL,
    secure: bool = False,
) -> Requirement | Unfit:
    return require(Domain("x.example", secure, True, policy, rule), "mx.test", tlsa, "mx.test", demand)


def level(found: Requirement | Unfit) -> Level | None:
    return found.level if isinstance(found, Requirement) else None


@pytest.mark.parametrize(
    ("policy", "tlsa", "rule", "expected"),
    [
        (None, (), "Opportunistic", Level.OPPORTUNISTIC),
        (NONE, (), "Opportunistic", Level.OPPORTUNISTIC),
        (TESTING, (), "Opportunistic", Level.OPPORTUNISTIC),
        (ENFORCE, (), "Opportunistic", Level.VERIFY),
        (None, (GOOD,), "Opportunistic", Level.DANE),
        (ENFORCE, (GOOD,), "Opportunistic", Level.DANE),  # DANE beats MTA-STS
        (None, (BAD,), "Opportunistic", Level.ENCRYPT),  # unusable: TLS all the same
        (ENFORCE, (BAD,), "Opportunistic", Level.VERIFY),
        (None, (), "Encrypt", Level.ENCRYPT),
        (TESTING, (), "Encrypt", Level.ENCRYPT),
        (None, (), "Verify", Level.VERIFY),
        (None, (BAD,), "Verify", Level.VERIFY),
        (None, (GOOD,), "Encrypt", Level.DANE),
        (None, (GOOD,), "Dane", Level.DANE),
        (None, (), "Dane", None),
        (ENFORCE, (BAD,), "Dane", None),
    ],
)
def test_the_strictest_holds(policy: Policy | None, tlsa: tuple[Tlsa, ...], rule: TlsPolicy, expected: Level | None) -> None:
    assert level(required(policy, tlsa, rule=rule)) is expected


def test_a_host_outside_of_an_enforced_policy_gets_nothing_for_now() -> None:
    other = Policy(Mode.ENFORCE, ("mx.else",), 60)
    found = required(other)
    assert isinstance(found, Unfit)
    assert not found.final
    assert level(required(Policy(Mode.TESTING, ("mx.else",), 60))) is Level.OPPORTUNISTIC
    assert level(required(other, (GOOD,))) is Level.DANE


def test_tls_required_no_passes_what_the_domain_publishes_but_not_the_pools_rule() -> None:
    for policy, tlsa in ((ENFORCE, ()), (Policy(Mode.ENFORCE, ("mx.else",), 60), ()), (None, (GOOD,))):
        assert level(required(policy, tlsa, demand=Demand.RELAX)) is Level.OPPORTUNISTIC
    assert level(required(rule="Encrypt", demand=Demand.RELAX)) is Level.ENCRYPT


@pytest.mark.parametrize(
    ("policy", "tlsa", "secure", "expected"),
    [
        (None, (), False, None),  # nobody vouches for the name
        (NONE, (), False, None),
        (None, (), True, Level.VERIFY),
        (ENFORCE, (), False, Level.VERIFY),
        (TESTING, (), False, Level.VERIFY),
        (None, (GOOD,), True, Level.DANE),
        (None, (BAD,), True, Level.VERIFY),
    ],
)
def test_requiretls_needs_an_authentic_name_and_a_verified_certificate(
    policy: Policy | None, tlsa: tuple[Tlsa, ...], secure: bool, expected: Level | None
) -> None:
    found = required(policy, tlsa, secure=secure, demand=Demand.REQUIRE)
    assert level(found) is expected
    if isinstance(found, Unfit):
        assert found.final
    else:
        assert found.requiretls


def test_a_session_carries_only_messages_that_demand_no_more_than_it_was_opened_for() -> None:
    assert demand_of(MailOptions(require_tls=True, tls_optional=True)) is Demand.REQUIRE
    table = {(opened, asked): serves(opened, asked) for opened in Demand for asked in Demand}
    assert {pair for pair, fits in table.items() if not fits} == {
        (Demand.RELAX, Demand.NORMAL),
        (Demand.RELAX, Demand.REQUIRE),
        (Demand.NORMAL, Demand.REQUIRE),
    }


def test_people_read_what_was_verified_and_by_what() -> None:
    assert told("TLSv1.3 X", Requirement(Level.VERIFY, "MTA-STS enforce"), "") == "TLSv1.3 X, certificate verified by MTA-STS enforce"
    assert told("TLSv1.3 X", Requirement(), "") == "TLSv1.3 X, certificate not verified"
    assert (
        told("TLSv1.3 X", Requirement(Level.ENCRYPT, "DANE, no usable record"), "") == "TLSv1.3 X, certificate not verified (DANE, no usable record)"
    )
    assert told("", Requirement(), "") == ""
    assert told("", Requirement(), "note") == "in clear; note"
