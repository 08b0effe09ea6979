"""The records that a MailDomain asks for: on one machine and in a cluster the same."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from postroom_core.documents import Domain, SenderDomain
from postroom_operator.authority import matches
from postroom_operator.plan import dns, maildomain
from postroom_operator.plan.compile import Observed, compile_resources
from postroom_operator.plan.dkim import Seen
from postroom_operator.plan.dns import DnsRecord, Host
from postroom_operator.plan.domain import CompiledDomain
from postroom_operator.plan.maildomain import Facts
from postroom_operator.plan.names import Owner
from postroom_operator.plan.tls import Found
from postroom_operator.resources import Resource, Resources, Where

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST = Host("mta.example.com")
ASKED: dict[str, Any] = {
    "dmarc": {"policy": "Unmanaged"},
    "returnPath": {"label": "bounce"},
    "tlsReporting": {"reportAddresses": ["mailto:tls@a.example", "https://reports.example/tls"]},
}


def values(spec: Mapping[str, Any], host: Host = HOST) -> dict[tuple[str, str], str]:
    return {record.key: record.value for record in dns.records("a.example", {"dns": spec}, (), host)}


def test_a_return_path_has_an_mx_that_leads_here_and_an_spf_record_of_its_own() -> None:
    assert values(ASKED) == {
        ("bounce.a.example", "MX"): "10 mta.example.com",
        ("bounce.a.example", "TXT"): "v=spf1 a:mta.example.com ~all",
        ("_smtp._tls.a.example", "TXT"): "v=TLSRPTv1; rua=mailto:tls@a.example,https://reports.example/tls",
    }


def test_addresses_that_were_told_are_all_that_mail_leaves_from() -> None:
    told = values(ASKED, Host("mta.example.com", ("192.0.2.1", "2001:db8::1")))
    assert told["bounce.a.example", "TXT"] == "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"


@pytest.mark.parametrize("name", ["", "localhost"])
def test_a_host_without_a_name_can_take_no_bounces(name: str) -> None:
    assert set(values(ASKED, Host(name))) == {("_smtp._tls.a.example", "TXT")}


def test_nothing_is_listed_that_nobody_asked_for() -> None:
    assert values({}) == {("_dmarc.a.example", "TXT"): "v=DMARC1; p=none"}
    assert values({"dmarc": {"policy": "Unmanaged"}}) == {}


def test_one_machine_lists_them_too() -> None:
    where = Where("", {})
    spec = {"domainName": "a.example", "poolRef": {"name": "main"}, "sendingState": "Active", "dns": ASKED}
    found = Resources((Resource("MailDomain", "a", "default", spec, where),), (), {}, ())
    records = compile_resources(found, Observed(host=HOST)).records["a.example"]
    assert {record.key for record in records} == set(values(ASKED))


def facts(seen: Mapping[tuple[str, str], Seen], **changes: Any) -> Facts:
    owner = Owner("MailDomain", "tenant", "a", "uid-1")
    document = Domain(name="a.example", tenant="tenant", pool="mail/main", active=True, signed=False)
    given: dict[str, Any] = {
        "owner": owner,
        "spec": {"domainName": "a.example", "dns": ASKED},
        "compiled": CompiledDomain(document),
        "state": "",
        "missing": (),
        "rotation": None,
        "keyset": None,
        "records": dns.records("a.example", {"dns": ASKED}, (), HOST),
        "seen": seen,
        "external_dns": True,
        "cert_manager": False,
        "certificate": Found(None, ""),
        "pool": "main-delivery",
        "senders": SenderDomain(name="a.example", tenant="tenant", signed=False),
    }
    return Facts(**(given | changes))


def test_two_types_at_one_name_are_looked_at_apart() -> None:
    shown, absent = Seen(NOW, 2, 2), Seen(NOW, 0, 2, True)
    seen = {("bounce.a.example", "MX"): shown, ("bounce.a.example", "TXT"): absent}
    told = {(record["name"], record["type"]): record["visible"] for record in maildomain.status(facts(seen), None)["dnsRecords"]}
    assert told == {("bounce.a.example", "MX"): "True", ("bounce.a.example", "TXT"): "False", ("_smtp._tls.a.example", "TXT"): "Unknown"}


def test_external_dns_gets_them_as_it_writes_them() -> None:
    places = maildomain.Places("mail", "mail-keys")
    (endpoint,) = [body for body in maildomain.wanted(facts({}), places) if body["kind"] == "DNSEndpoint"]
    assert [(found["dnsName"], found["recordType"], found["targets"]) for found in endpoint["spec"]["endpoints"]] == [
        ("_smtp._tls.a.example", "TXT", ["v=TLSRPTv1; rua=mailto:tls@a.example,https://reports.example/tls"]),
        ("bounce.a.example", "MX", ["10 mta.example.com"]),
        ("bounce.a.example", "TXT", ["v=spf1 a:mta.example.com ~all"]),
    ]
    assert endpoint["metadata"]["ownerReferences"]
    kept = facts({}, spec={"domainName": "a.example", "dns": ASKED, "deletionPolicy": "Retain"})
    (endpoint,) = [body for body in maildomain.wanted(kept, places) if body["kind"] == "DNSEndpoint"]
    assert "ownerReferences" not in endpoint["metadata"]


def test_an_installation_without_a_name_says_why_records_are_missing() -> None:
    (told,) = [c for c in maildomain.observe(facts({}, nameless=True, records=())) if c.type == "DNSReady"]
    assert (told.status, told.reason) == ("True", "AllVisible") and "no hostname" in told.message


def test_the_generation_in_force_is_told_when_it_is_known() -> None:
    assert "limitsGeneration" not in maildomain.status(facts({}), None)
    assert maildomain.status(facts({}, acknowledged=3), None)["limitsGeneration"] == 3


@pytest.mark.parametrize(
    ("found", "same"),
    [
        (["10 mta.example.com."], True),
        (["10 MTA.example.com."], True),
        (["20 mta.example.com."], False),
        (["10 mta.example.com.", "20 b."], False),
        ([], False),
    ],
)
def test_an_mx_is_compared_as_dns_compares_names(found: list[str], same: bool) -> None:
    assert matches(found, "MX", "10 mta.example.com") is same


def test_a_record_names_its_rrset() -> None:
    assert DnsRecord("n", "MX", "v", False, "p").key == ("n", "MX")
