"""What DNS answers mean for a domain that sends: SPF, DKIM, DMARC, return-path, transport records, null MX. Pure: answers in, findings out."""

from collections.abc import Sequence

from postroom_insight import dmarc, keys, tags
from postroom_insight.finding import Finding, Grade, Publish
from postroom_insight.keys import OwnKey
from postroom_insight.question import Answer, Status
from postroom_insight.spf import MOST_TERMS, MOST_VOIDS, Verdict

# A record this near to the limit breaks when an included provider adds one more.
NEAR_TERMS = 8
DMARC_RULE = "RFC 9989; Gmail, Yahoo and Microsoft demand it of bulk senders"
SPF_RULE = "RFC 7208; Gmail, Yahoo and Microsoft demand it of bulk senders"


def suggested_spf(addresses: Sequence[str], record: str) -> str:
    """The record with our addresses in front of what is there; a new one when there is none."""
    own = [f"{'ip6' if ':' in address else 'ip4'}:{address}" for address in addresses]
    rest = record.split(" ")[1:] if record else ["~all"]
    return " ".join(["v=spf1", *own, *(term for term in rest if term and term not in own)])


def spf(domain: str, verdicts: Sequence[tuple[str, Verdict]]) -> list[Finding]:
    """Of (egress address, verdict) for mail from the domain."""
    found = []
    failing = [address for address, verdict in verdicts if verdict.result not in ("pass", "temperror")]
    for address, verdict in verdicts:
        used = f"{verdict.terms} of {MOST_TERMS} look-ups, {verdict.voids} of {MOST_VOIDS} void"
        match verdict.result:
            case "pass":
                grade = Grade.ADVICE if verdict.terms > NEAR_TERMS else Grade.PASS
                wanted = "" if grade is Grade.PASS else "fewer look-ups: one more include and every receiver sees a permerror"
                found.append(Finding("spf", address, grade, f"pass by {verdict.term} ({used})", wanted, rule=SPF_RULE))
            case "temperror":
                found.append(Finding("spf", address, Grade.UNKNOWN, verdict.reason, "an answer", rule=SPF_RULE))
            case "permerror":
                wanted = "one record that can be read, within 10 look-ups and 2 void ones"
                found.append(Finding("spf", address, Grade.FAIL, f"permerror: {verdict.reason}", wanted, rule=SPF_RULE))
            case "none":
                publish = Publish(domain, "TXT", suggested_spf(failing, ""))
                found.append(Finding("spf", address, Grade.FAIL, "no SPF record", "a record that names this address", publish, SPF_RULE))
            case result:
                publish = Publish(domain, "TXT", suggested_spf(failing, verdict.record))
                seen = f"{result} by {verdict.term or 'the end of the record'}: {verdict.record}"
                found.append(Finding("spf", address, Grade.FAIL, seen, "pass", publish, SPF_RULE))
    return found


def ehlo_spf(own_name: str, address: str, verdict: Verdict) -> Finding:
    """Bounces have the null reverse-path and are checked as postmaster at the EHLO name (RFC 7208 section 2.4)."""
    if verdict.result in ("pass", "temperror"):
        grade = Grade.PASS if verdict.result == "pass" else Grade.UNKNOWN
        return Finding("spf", f"{own_name} from {address}", grade, verdict.reason or f"pass by {verdict.term}", rule="RFC 7208 section 2.4")
    publish = Publish(own_name, "TXT", "v=spf1 a -all") if verdict.result == "none" and "." in own_name else None
    seen = {"none": "no SPF record for the EHLO name"}.get(verdict.result, f"{verdict.result} {verdict.reason or verdict.term}")
    wanted = "pass, because delivery notices are checked by this name"
    grade = Grade.ADVICE if verdict.result in ("none", "neutral") else Grade.FAIL
    return Finding("spf", f"{own_name} from {address}", grade, seen, wanted, publish, "RFC 7208 section 2.4")


def dkim(domain: str, own: Sequence[OwnKey], answers: Sequence[Sequence[tuple[str, Answer]]]) -> list[Finding]:
    """Of every key, with (server, answer) of each authoritative server, or of the resolver when they cannot be asked."""
    if not own:
        wanted = "spec.dkim in the MailDomain; the first postroom up makes the keys"
        return [Finding("dkim", domain, Grade.FAIL, "Postroom holds no DKIM key for it", wanted, rule="Gmail, Yahoo and Microsoft demand DKIM")]
    found = []
    for key, answered in zip(own, answers, strict=True):
        name = f"{key.selector}._domainkey.{domain}"
        publish = Publish(name, "TXT", key.record)
        silent = [f"{server}: {answer.reason}" for server, answer in answered if answer.status is Status.FAILED]
        wrong = [
            f"{server}: {fault}" for server, answer in answered if answer.status is not Status.FAILED and (fault := keys.fault(answer.values, key))
        ]
        if wrong:
            # Our newest key may wait for its record; it does not sign before (P4), so nothing is refused for it yet.
            grade = Grade.FAIL if key.active else Grade.ADVICE
            found.append(
                Finding("dkim", name, grade, "; ".join(wrong), f"our {key.algorithm} key at every server", publish, "RFC 6376 section 3.6.1")
            )
        elif silent:
            found.append(Finding("dkim", name, Grade.UNKNOWN, "; ".join(silent), "an answer of every server", rule="RFC 6376 section 3.6.1"))
        else:
            servers = ", ".join(server for server, _ in answered)
            found.append(Finding("dkim", name, Grade.PASS, f"our {key.algorithm} key at {servers}", rule="RFC 6376 section 3.6.1"))
    return found


def dmarc_policy(walk: dmarc.Walk, signing: dmarc.Walk, bounce: dmarc.Walk) -> list[Finding]:
    """The policy of the author domain, and whether what we send is aligned: `signing` is d=, `bounce` the domain of the reverse-path."""
    name = f"_dmarc.{walk.domain}"
    found = [Finding("dmarc", name, Grade.FAIL, fault, "one valid record", _dmarc_record(walk.domain), DMARC_RULE) for fault in walk.broken]
    record = walk.policy_record
    if walk.failed and record is None:
        return [*found, Finding("dmarc", name, Grade.UNKNOWN, f"DNS did not answer for {walk.failed}", "an answer", rule=DMARC_RULE)]
    if record is None:
        return found or [Finding("dmarc", name, Grade.FAIL, "no DMARC record here or above", "a policy", _dmarc_record(walk.domain), DMARC_RULE)]
    found.append(_policy(walk, record))
    removed = [tag for tag in dmarc.REMOVED if tag in record.tags]
    if removed:
        wanted = "a record without tags that RFC 9989 removed"
        found.append(Finding("dmarc", f"_dmarc.{record.domain}", Grade.ADVICE, f"{', '.join(removed)} in {record.text!r}", wanted, rule="RFC 9989"))
    for what, tag, other in (("DKIM", "adkim", signing), ("SPF", "aspf", bounce)):
        strict = record.tags.get(tag, "r").lower() == "s"
        good = dmarc.aligned(walk, other, strict=strict)
        seen = f"{other.domain} with {walk.domain}: {'aligned' if good else 'not aligned'}, {'strict' if strict else 'relaxed'}"
        wanted = "" if good else f"{what} of the domain itself, or {tag}=r"
        found.append(Finding("alignment", what, Grade.PASS if good else Grade.FAIL, seen, wanted, rule="RFC 9989 section 4.10.2"))
    return found


def _policy(walk: dmarc.Walk, record: dmarc.Record) -> Finding:
    seen = f"p={walk.policy} by _dmarc.{record.domain} ({walk.queries} of {dmarc.MOST_QUERIES} look-ups): {record.text}"
    if "rua" not in record.tags:
        wanted = "rua=mailto:…: without reports nobody sees who sends as this domain"
        return Finding("dmarc", f"_dmarc.{walk.domain}", Grade.ADVICE, seen, wanted, rule=DMARC_RULE)
    return Finding("dmarc", f"_dmarc.{walk.domain}", Grade.PASS, seen, rule=DMARC_RULE)


def _dmarc_record(domain: str) -> Publish:
    return Publish(f"_dmarc.{domain}", "TXT", f"v=DMARC1; p=none; rua=mailto:dmarc@{domain}")


def return_path(domain: str, mx: Answer, addresses: Answer, own_name: str) -> Finding:
    """Bounces of mail that we sent come back to the reverse-path's domain: it must take mail. RFC 7505: a null MX says that it never does."""
    rule = "RFC 5321 section 3.6.2, RFC 7505"
    hosts = [value.partition(" ")[2] for value in mx.values]
    if mx.status is Status.FAILED:
        return Finding("return-path", domain, Grade.UNKNOWN, mx.reason, "an answer", rule=rule)
    if hosts and not any(host.strip(".") for host in hosts):
        wanted = "an MX that takes bounces: receivers answer 550 5.7.27 to senders with a null MX"
        return Finding("return-path", domain, Grade.FAIL, "null MX", wanted, Publish(domain, "MX", f"10 {own_name}."), rule)
    if hosts:
        return Finding("return-path", domain, Grade.PASS, f"MX {', '.join(hosts)}", rule=rule)
    if addresses.values:
        return Finding(
            "return-path", domain, Grade.ADVICE, f"no MX, mail goes to its address {', '.join(addresses.values)}", "an MX record", rule=rule
        )
    wanted = "an MX record, or a reverse-path below a domain that has one: receivers refuse senders whose domain takes no mail"
    return Finding("return-path", domain, Grade.FAIL, "neither MX nor address", wanted, rule=rule)


def mta_sts(domain: str, answer: Answer) -> Finding:
    """Protects mail to the domain; receivers of our mail do not ask for it."""
    records = [value for value in answer.values if value.startswith("v=STSv1")]
    name, rule = f"_mta-sts.{domain}", "RFC 8461 section 3.1"
    if answer.status is Status.FAILED:
        return Finding("mta-sts", name, Grade.UNKNOWN, answer.reason, "an answer", rule=rule)
    if not records:
        return Finding("mta-sts", name, Grade.ADVICE, "no record", "a policy, if the domain takes mail", rule=rule)
    found = tags.parse(records[0])
    good = len(records) == 1 and found is not None and found.get("id", "").isalnum() and len(found["id"]) <= 32
    wanted = "" if good else "one record v=STSv1; id=… with 1 to 32 letters and digits"
    return Finding("mta-sts", name, Grade.PASS if good else Grade.FAIL, "; ".join(records), wanted, rule=rule)


def tls_rpt(domain: str, answer: Answer) -> Finding:
    """Where others report how TLS to the domain went."""
    records = [value for value in answer.values if value.startswith("v=TLSRPTv1")]
    name, rule = f"_smtp._tls.{domain}", "RFC 8460 section 3"
    publish = Publish(name, "TXT", f"v=TLSRPTv1; rua=mailto:tlsrpt@{domain}")
    if answer.status is Status.FAILED:
        return Finding("tls-rpt", name, Grade.UNKNOWN, answer.reason, "an answer", rule=rule)
    if not records:
        return Finding("tls-rpt", name, Grade.ADVICE, "no record", "reports, if the domain takes mail", publish, rule)
    found = tags.parse(records[0]) or {}
    good = len(records) == 1 and all(uri.strip().startswith(("mailto:", "https:")) for uri in found.get("rua", "-").split(","))
    wanted = "" if good else "one record with rua=mailto:… or https:…"
    return Finding("tls-rpt", name, Grade.PASS if good else Grade.FAIL, "; ".join(records), wanted, None if good else publish, rule)
