"""`postroom check`: every question about a domain and the addresses it sends from, asked at once; the findings in the order that people read them.

Decides nothing: `spf`, `dmarc`, `records`, `addresses` and `unsubscribe` do. Never sends mail; the relay probe speaks to our own listeners alone.
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from postroom_insight import addresses, blocklist, dmarc, records, relay_probe, spf, unsubscribe
from postroom_insight.finding import Finding, Grade
from postroom_insight.keys import OwnKey
from postroom_insight.lookups import Lookups
from postroom_insight.question import Answer, Question


@dataclass(frozen=True, slots=True)
class Target:
    """What is checked. `egress` are the addresses that mail leaves from, `own_name` is what EHLO says, `bounce` the reverse-path's domain."""

    domain: str
    own_name: str
    egress: tuple[str, ...] = ()
    keys: tuple[OwnKey, ...] = ()
    bounce: str = ""
    blocklists: tuple[str, ...] = blocklist.COMMON
    message: bytes | None = None
    listeners: tuple[tuple[str, int], ...] = field(default=())
    source: str | None = None


async def run(target: Target, lookups: Lookups) -> list[Finding]:
    """All findings. Nothing raises for what DNS or a listener says."""
    parts = [
        _spf(target, lookups),
        _dkim(target, lookups),
        _dmarc(target, lookups),
        _names(target, lookups),
        _egress(target, lookups),
        _relay(target),
    ]
    found = [finding for part in await asyncio.gather(*parts) for finding in part]
    return found + (unsubscribe.findings(target.message, target.domain) if target.message is not None else [])


def failed(findings: Sequence[Finding]) -> bool:
    """Whether the answer is no: something is wrong, or could not be seen."""
    return any(finding.grade in (Grade.FAIL, Grade.UNKNOWN) for finding in findings)


async def _spf(target: Target, lookups: Lookups) -> list[Finding]:
    if not target.egress:
        seen = "the addresses that mail leaves from are not known"
        return [Finding("spf", target.domain, Grade.UNKNOWN, seen, "name them by --egress ADDRESS", rule=records.SPF_RULE)]
    bounce = target.bounce or target.domain
    verdicts = [(address, await lookups.run(spf.check(address, f"postmaster@{bounce}", target.own_name))) for address in target.egress]
    notices = [records.ehlo_spf(target.own_name, address, await lookups.run(spf.check(address, "", target.own_name))) for address in target.egress]
    return [*records.spf(bounce, verdicts), *notices]


async def _dkim(target: Target, lookups: Lookups) -> list[Finding]:
    servers = await lookups.authoritative(target.domain)

    async def answers(key: OwnKey) -> list[tuple[str, Answer]]:
        question = Question(f"{key.selector}._domainkey.{target.domain}", "TXT")
        if not servers:
            return [("the resolver", await lookups.ask(question))]
        found = await asyncio.gather(*(lookups.ask_at(server, question) for server in servers))
        return [(server[0], answer) for server, answer in zip(servers, found, strict=True)]

    return records.dkim(target.domain, target.keys, await asyncio.gather(*(answers(key) for key in target.keys)))


async def _dmarc(target: Target, lookups: Lookups) -> list[Finding]:
    author = await lookups.run(dmarc.walk(target.domain))
    bounce = await lookups.run(dmarc.walk(target.bounce)) if target.bounce else author
    return records.dmarc_policy(author, author, bounce)  # d= is the MailDomain's name


async def _names(target: Target, lookups: Lookups) -> list[Finding]:
    bounce = target.bounce or target.domain
    questions = (
        Question(bounce, "MX"),
        Question(bounce, "A"),
        Question(f"_mta-sts.{target.domain}", "TXT"),
        Question(f"_smtp._tls.{target.domain}", "TXT"),
    )
    mx, a, sts, rpt = await asyncio.gather(*(lookups.ask(question) for question in questions))
    return [records.return_path(bounce, mx, a, target.own_name), records.mta_sts(target.domain, sts), records.tls_rpt(target.domain, rpt)]


async def _egress(target: Target, lookups: Lookups) -> list[Finding]:
    if not target.egress:
        return []
    found = [addresses.own_name(target.own_name, await lookups.addresses(target.own_name), target.egress)]
    for address in target.egress:
        ptr = await lookups.ask(Question(ipaddress.ip_address(address).reverse_pointer, "PTR"))
        forward = {name: await lookups.addresses(name) for name in ptr.values[: spf.MOST_NAMES]}
        found.append(addresses.reverse(address, target.own_name, ptr, forward))
    looks = [lookups.run(blocklist.look(address, zone)) for address in target.egress for zone in target.blocklists]
    return found + [addresses.listed(listing) for listing in await asyncio.gather(*looks)]


async def _relay(target: Target) -> list[Finding]:
    rule = "P5: never a relay for strangers"
    if not target.listeners:
        return [Finding("relay", target.domain, Grade.SKIPPED, "no Postroom runs with this data folder", rule=rule)]
    found = []
    for host, port in target.listeners:
        subject, source = f"{host}:{port}", target.source or relay_probe.stranger_address(host)
        if source is None:
            found.append(Finding("relay", subject, Grade.SKIPPED, "this machine has no address outside of loopback to come from", rule=rule))
            continue
        try:
            probes = await relay_probe.probe(host, port, source, target.domain)
        except (OSError, TimeoutError) as error:
            found.append(Finding("relay", subject, Grade.UNKNOWN, f"no answer from {source} ({error or 'time-out'})", "an answer", rule=rule))
            continue
        found.append(_relay_finding(subject, source, probes, rule))
    return found


def _relay_finding(subject: str, source: str, probes: Sequence[relay_probe.Probe], rule: str) -> Finding:
    relayed = [probe for probe in probes if probe.relayed]
    if relayed:
        seen = "; ".join(
            f"from {source} MAIL FROM:<{probe.reverse_path}> RCPT TO:<{probe.recipient}> was answered {probe.reply}" for probe in relayed
        )
        wanted = f"refusal: {source} must not be in spec.clients unless it is an application's own address (SNAT shows everybody as one)"
        return Finding("relay", subject, Grade.FAIL, seen, wanted, rule=rule)
    return Finding("relay", subject, Grade.PASS, f"{len(probes)} envelopes of a stranger at {source} were refused", rule=rule)
