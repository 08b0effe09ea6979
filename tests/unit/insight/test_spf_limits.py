"""What a finding tells of SPF's limits, beyond the public suite."""

from postroom_insight import records, spf
from postroom_insight.finding import Grade

from unit.insight.zone import Zone, drive


def verdict(zone: Zone, address: str = "192.0.2.9") -> spf.Verdict:
    return drive(spf.check(address, "a@example.com", "mta.example.com"), zone)[0]


def chain(length: int) -> Zone:
    """example.com includes n1, which includes n2, and so on; the last has the address."""
    zone = {("example.com", "TXT"): ["v=spf1 include:n1.example -all"]}
    for number in range(1, length):
        zone[(f"n{number}.example", "TXT")] = [f"v=spf1 include:n{number + 1}.example -all"]
    zone[(f"n{length}.example", "TXT")] = ["v=spf1 ip4:192.0.2.9 -all"]
    return zone


def test_ten_lookups_pass_with_advice_and_eleven_are_a_permerror() -> None:
    ten = verdict(chain(10))
    assert (ten.result, ten.terms) == ("pass", 10)
    assert records.spf("example.com", [("192.0.2.9", ten)])[0].grade is Grade.ADVICE
    eleven = verdict(chain(11))
    assert (eleven.result, eleven.reason) == ("permerror", "more than 10 DNS look-ups are needed, at include:n11.example")


def test_two_void_lookups_are_allowed_and_three_are_not() -> None:
    def zone(count: int) -> Zone:
        return {("example.com", "TXT"): ["v=spf1 " + " ".join(f"a:gone{n}.example" for n in range(count)) + " ip4:192.0.2.9 -all"]}

    assert (verdict(zone(2)).result, verdict(zone(2)).voids) == ("pass", 2)
    assert "look-ups find nothing" in verdict(zone(3)).reason


def test_the_suggested_record_keeps_what_is_there_and_names_every_failing_address_once() -> None:
    zone: Zone = {("example.com", "TXT"): ["v=spf1 include:p.example -all"], ("p.example", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"]}
    verdicts = [(address, verdict(zone, address)) for address in ("192.0.2.9", "2001:db8::9", "198.51.100.1")]
    found = records.spf("example.com", verdicts)
    assert [finding.grade for finding in found] == [Grade.FAIL, Grade.FAIL, Grade.PASS]
    assert found[0].publish is not None and found[0].publish.value == "v=spf1 ip4:192.0.2.9 ip6:2001:db8::9 include:p.example -all"


def test_two_records_are_a_permerror_that_says_so() -> None:
    assert verdict({("example.com", "TXT"): ["v=spf1 -all", "v=spf1 +all"]}).reason == "example.com has 2 SPF records; one is allowed"
