"""What a message counts against which limits; the counting itself is the spool's, see the contract of the spool."""

from dataclasses import replace

from postroom_core.documents import Domain, Limits
from postroom_ingress.envelope import DAY, HOUR, Allowance, allowances
from postroom_ingress.policy import Identity

DOMAIN = Domain(
    name="d.example",
    tenant="t",
    pool="p",
    active=True,
    signed=False,
    limits=Limits(messages_per_day=100, recipients_per_hour=50, max_message_bytes=5000),
)
IDENTITY = Identity(DOMAIN, "app", (), authenticated=True, limits=Limits(messages_per_hour=10, recipients_per_day=20, max_message_bytes=9000))


def test_credential_and_domain_are_counted_apart_and_recipients_by_their_number() -> None:
    assert set(allowances(IDENTITY, 3)) == {
        Allowance("domain:d.example", DAY, 100, 1, "messages"),
        Allowance("domain:d.example:recipients", HOUR, 50, 3, "recipients"),
        Allowance("credential:d.example/app", HOUR, 10, 1, "messages"),
        Allowance("credential:d.example/app:recipients", DAY, 20, 3, "recipients"),
    }


def test_a_client_without_credential_has_the_domains_limits_alone() -> None:
    assert {found.key for found in allowances(replace(IDENTITY, authenticated=False, limits=Limits()), 1)} == {
        "domain:d.example",
        "domain:d.example:recipients",
    }


def test_the_smaller_limit_of_a_message_holds() -> None:
    assert IDENTITY.least("max_message_bytes") == 5000
    assert IDENTITY.least("max_recipients_per_message") is None
