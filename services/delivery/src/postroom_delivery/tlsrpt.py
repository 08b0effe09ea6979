"""Reports about TLS to the domains that ask for them (RFC 8460): what a session counts as, the record that asks, the report, the message. Pure.

A session counts once, under the policy that it was held to: the host's TLSA records, the domain's MTA-STS policy, or none. What is not a matter of
TLS (no route, a refused greeting) is no session.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

from postroom_core.address import BadAddress, parse_mailbox
from postroom_delivery.dane import Tlsa
from postroom_delivery.security import Domain, Level, Requirement
from postroom_delivery.spool.tls_tally import TlsCount, TlsSession
from postroom_delivery.sts import Mode, Policy

DAY_MS = 86_400_000
# A domain that names hundreds of addresses would make us send hundreds of mails.
MOST_ADDRESSES = 5
_RECORD = re.compile(r"v=TLSRPTv1[ \t]*;(.*)", re.DOTALL)
_TLSA, _STS, _NONE = "tlsa", "sts", "no-policy-found"
# Numbers of OpenSSL's verification errors.
_OF_CERTIFICATES = {9: "certificate-expired", 10: "certificate-expired", 62: "certificate-host-mismatch", 64: "certificate-host-mismatch"}


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: `address` is the sender and the contact; its domain is the organisation and the submitter."""

    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


# What a session counts as


def session(domain: Domain, required: Requirement | None, result: str = "", where: tuple[str, str] = ("", ""), reason: str = "") -> TlsSession:
    """`required` None: no host was dialled; `where` is the name and the address of the host; `result` as in section 4.3, "" is success."""
    policy = _policy(domain, required)
    return TlsSession(domain.name, policy, result, *where, reason) if result else TlsSession(domain.name, policy)


def without_policy(domain: Domain) -> TlsSession:
    """A session that an MTA-STS policy would have governed, if it could have been had; the domain says why."""
    return TlsSession(domain.name, _STS, domain.sts_trouble)


def of_handshake(error: BaseException, *, dane: bool) -> str:
    """The result type of a handshake that failed; `error` is what the session raised."""
    cause = error.__cause__
    code = getattr(cause, "verify_code", None)
    if dane and " not for " in str(error):
        return "certificate-host-mismatch"
    if code is None:
        return "validation-failure"
    return _OF_CERTIFICATES.get(code, "certificate-not-trusted")


def _policy(domain: Domain, required: Requirement | None) -> str:
    if required is not None and (required.level is Level.DANE or required.source.startswith("DANE")):
        return "\n".join((_TLSA, *map(_tlsa, required.tlsa)))
    if domain.policy is not None and domain.policy.mode is not Mode.NONE:
        return "\n".join((_STS, *_sts(domain.policy)))
    return _NONE


def dane_refused(domain: Domain, result: str, host: str, reason: str) -> TlsSession:
    """A host whose TLSA records could not be had or were not there, though they had to be."""
    return TlsSession(domain.name, _TLSA, result, host, "", reason)


def _tlsa(record: Tlsa) -> str:
    return f"{record.usage} {record.selector} {record.matching} {record.data.hex()[:1000]}"


def _sts(policy: Policy) -> tuple[str, ...]:
    return ("version: STSv1", f"mode: {policy.mode.value}", *(f"mx: {pattern}" for pattern in policy.patterns), f"max_age: {policy.max_age}")


# Who asks for a report


def addresses(texts: Sequence[str]) -> list[str]:
    """The URIs of the TXT records at _smtp._tls (section 3): mailto and https, the first few; none without exactly one record."""
    found = [match[1] for match in map(_RECORD.fullmatch, texts) if match]
    if len(found) != 1:
        return []
    fields = dict(field.strip(" \t").partition("=")[::2] for field in found[0].split(";"))
    uris = [uri.strip(" \t") for uri in fields.get("rua", "").split(",")]
    return [uri for uri in uris if uri.startswith("https://") or mailbox(uri)][:MOST_ADDRESSES]


def mailbox(uri: str) -> str:
    """The address of a mailto URI; "" for what is none or has no address that may be written to."""
    if not uri.lower().startswith("mailto:"):
        return ""
    try:
        return str(parse_mailbox(unquote(uri[7:].partition("?")[0])))
    except BadAddress:
        return ""


# The report


def report(day: int, counts: Iterable[TlsCount], reporter: Reporter, report_id: str) -> dict[str, Any]:
    """The document of section 4.4 about one domain's day."""
    policies: dict[str, list[TlsCount]] = {}
    for one in counts:
        policies.setdefault(one.session.policy, []).append(one)
    return {
        "organization-name": reporter.domain,
        "date-range": {"start-datetime": _time(day * DAY_MS), "end-datetime": _time((day + 1) * DAY_MS - 1000)},
        "contact-info": reporter.address,
        "report-id": report_id,
        "policies": [_of_policy(text, found) for text, found in policies.items()],
    }


def _of_policy(text: str, counts: Sequence[TlsCount]) -> dict[str, Any]:
    kind, *lines = text.split("\n")
    policy: dict[str, Any] = {"policy-type": kind, "policy-domain": counts[0].session.domain}
    if lines:
        policy["policy-string"] = lines
    if hosts := [line[4:] for line in lines if line.startswith("mx: ")]:
        policy["mx-host"] = hosts
    failed = [one for one in counts if one.session.result]
    summary = {
        "total-successful-session-count": sum(one.count for one in counts if not one.session.result),
        "total-failure-session-count": sum(one.count for one in failed),
    }
    details = [_detail(one) for one in failed]
    return {"policy": policy, "summary": summary} | ({"failure-details": details} if details else {})


def _detail(one: TlsCount) -> dict[str, Any]:
    told = one.session
    fields = {"receiving-mx-hostname": told.host, "receiving-ip": told.address, "failure-reason-code": told.reason}
    return {"result-type": told.result, **{name: value for name, value in fields.items() if value}, "failed-session-count": one.count}


def packed(document: Mapping[str, Any]) -> bytes:
    """As it travels: gzip, the same octets whenever it is made."""
    return gzip.compress(json.dumps(document, ensure_ascii=False, indent=1).encode(), mtime=0)


def file_name(domain: str, day: int, reporter: Reporter) -> str:
    """Section 5.1."""
    return f"{reporter.domain}!{domain}!{day * DAY_MS // 1000}!{(day + 1) * DAY_MS // 1000 - 1}.json.gz"


def mail(document: Mapping[str, Any], domain: str, day: int, reporter: Reporter, to: str, now: int) -> tuple[bytes, bytes]:
    """(header block, body) of section 5.3, without a signature."""
    report_id = document["report-id"]
    boundary = f"=_{report_id}"
    headers = (
        f"Date: {format_datetime(datetime.fromtimestamp(now / 1000, UTC))}",
        f"From: <{reporter.address}>",
        f"To: <{to}>",
        f"Subject: Report Domain: {domain} Submitter: {reporter.domain}",
        f" Report-ID: <{report_id}@{reporter.domain}>",
        f"Message-ID: <{report_id}@{reporter.domain}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {reporter.domain}",
        "Auto-Submitted: auto-generated",
        "TLS-Required: No",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n\tboundary="{boundary}"',
        "",
    )
    name = file_name(domain, day, reporter)
    coded = base64.encodebytes(packed(document)).replace(b"\n", b"\r\n")
    text = f"How TLS went on {_time(day * DAY_MS)[:10]} (UTC) in sessions of {reporter.domain} with the mail hosts of {domain}.\r\n"
    attached = f'Content-Disposition: attachment;\r\n\tfilename="{name}"'
    parts = (
        f"Content-Type: text/plain; charset=us-ascii\r\n\r\n{text}".encode(),
        f"Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n{attached}\r\n\r\n".encode() + coded,
    )
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    return "\r\n".join(headers).encode(), body


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
