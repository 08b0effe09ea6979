"""Builds delivery status notifications (RFC 3464, RFC 3461, RFC 6533). Pure: data in, header block and body out.

A DSN has the null reverse-path, goes to the reverse-path of the message, and is never made for a message that had the null reverse-path itself
(RFC 5321 section 6.1): whoever settles puts those on the dead-letter list. So no DSN answers a DSN, and no loop can begin here.

Addresses outside of ASCII make it an internationalized DSN: message/global-* parts in UTF-8 instead of their ASCII counterparts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from postroom_delivery.spool.model import Claim

# Returned content beyond this helps nobody and doubles the traffic of an attack; headers are always returned.
MOST_RETURNED = 1024 * 1024
_WORDS = {
    "failed": "could not be delivered to the following recipients. No further attempt will be made.",
    "delayed": "has not been delivered yet to the following recipients. You need not send it again: delivery goes on.",
    "relayed": "was handed to a host that does not send delivery notices, for the following recipients.",
}
_SUBJECTS = {"failed": "Undelivered mail returned to sender", "delayed": "Mail delivery delayed", "relayed": "Mail relayed"}
_HEX = re.compile(r"\+([0-9A-F]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient's fate: `action` failed, delayed or relayed, `status` an enhanced code, `remote` the host that answered, `diagnostic` its reply.

    Times are Unix milliseconds, 0 is none: `attempted_at` of the last attempt, `retry_until` for a delay.
    """

    claim: Claim
    action: str
    status: str
    text: str
    remote: str = ""
    diagnostic: str = ""
    attempted_at: int = 0
    retry_until: int = 0


@dataclass(frozen=True, slots=True)
class Original:
    """What a DSN needs of the message it is about; `body` None returns headers only (RET=HDRS, or not to be returned)."""

    id: str
    reverse_path: str
    envid: str
    received_at: int
    headers: bytes
    body: bytes | None = None
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes the DSN: `own_name` is the reporting MTA, `domain` stands in From and Message-ID."""

    own_name: str
    domain: str


def build(original: Original, reports: Sequence[Report], author: Author, notice_id: str, now: int) -> tuple[bytes, bytes]:
    """(header block, body) of the DSN about `reports`, which share one action."""
    action = reports[0].action
    boundary = f"=_{notice_id}"
    utf8 = _is_utf8(original, reports)
    # Only a failure returns the content: RFC 3461 section 6.2 has headers for the rest.
    returned = _returned(original, utf8=utf8, full=action == "failed")
    parts = (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + _words(original, reports, author),
        _status(original, reports, author, utf8=utf8),
        returned,
    )
    delimiter = f"--{boundary}\r\n".encode()
    body = b"".join(delimiter + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    headers = (
        f"Date: {_date(now)}",
        f"From: Mail Delivery System <mailer-daemon@{author.domain}>",
        f"To: <{original.reverse_path}>",
        f"Subject: {_SUBJECTS[action]}",
        f"Message-ID: <{notice_id}@{author.domain}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {'7bit' if body.isascii() else '8bit'}",
        "",
    )
    return "\r\n".join(headers).encode(), body


def _is_utf8(original: Original, reports: Sequence[Report]) -> bool:
    addresses = [original.reverse_path, *(part for report in reports for part in (report.claim.address, report.claim.orcpt))]
    return not "".join(addresses).isascii() or (original.smtputf8 and not original.headers.isascii())


def _words(original: Original, reports: Sequence[Report], author: Author) -> bytes:
    lines = [
        f"This is the mail system of {author.own_name}.",
        "",
        "Your message",
        f"  of {_date(original.received_at)} (id {original.id})",
        _WORDS[reports[0].action],
        "",
    ]
    for report in reports:
        lines += [f"<{report.claim.address}>", *(f"    {line}" for line in _folded(report.text)), ""]
        if report.retry_until:
            lines += [f"    Attempts end at {_date(report.retry_until)}.", ""]
    return "\r\n".join(lines).encode("utf-8", "replace")


def _status(original: Original, reports: Sequence[Report], author: Author, *, utf8: bool) -> bytes:
    """RFC 3464 sections 2.2 and 2.3: one group for the message, one for each recipient."""
    lines = [f"Reporting-MTA: dns; {author.own_name}", f"X-Postroom-Message-ID: {original.id}", f"Arrival-Date: {_date(original.received_at)}"]
    if original.envid:
        lines.insert(0, f"Original-Envelope-Id: {_unxtext(original.envid)}")
    for report in reports:
        lines += ["", *_recipient(report, utf8=utf8)]
    text = "\r\n".join(lines) + "\r\n"
    if utf8:
        return b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + text.encode("utf-8", "replace")
    return b"Content-Type: message/delivery-status\r\n\r\n" + text.encode("ascii", "replace")


def _recipient(report: Report, *, utf8: bool) -> list[str]:
    claim, lines = report.claim, []
    if claim.orcpt:
        kind, _, address = claim.orcpt.partition(";")
        # The utf-8 form has an encoding of its own (RFC 6533 section 3) and stays as it came.
        lines.append(f"Original-Recipient: {kind};{address if kind.lower() == 'utf-8' else _unxtext(address)}")
    kind = "rfc822" if claim.address.isascii() or not utf8 else "utf-8"
    lines += [f"Final-Recipient: {kind}; {claim.address}", f"Action: {report.action}", f"Status: {report.status}"]
    if report.remote:
        lines.append(f"Remote-MTA: dns; {report.remote.partition('[')[0]}")
    if report.diagnostic:
        lines.append("Diagnostic-Code: smtp; " + "\r\n ".join(_folded(report.diagnostic)))
    if report.attempted_at:
        lines.append(f"Last-Attempt-Date: {_date(report.attempted_at)}")
    if report.retry_until:
        lines.append(f"Will-Retry-Until: {_date(report.retry_until)}")
    return lines


def _returned(original: Original, *, utf8: bool, full: bool) -> bytes:
    content = original.headers
    kind = "message/global-headers" if utf8 else "text/rfc822-headers"
    if full and original.body is not None:
        kind = "message/global" if utf8 else "message/rfc822"
        content += b"\r\n" + original.body
    encoding = "7bit" if content.isascii() else "8bit"
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + content


def _folded(text: str, width: int = 72) -> list[str]:
    """Lines of at most `width` where words allow; 240 characters are at most 960 octets, and a line may have 998 (RFC 5322 section 2.1.1)."""
    lines, line = [], ""
    for word in (piece[at : at + 240] for piece in _CONTROL.sub(" ", text).split() for at in range(0, len(piece), 240)):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _unxtext(text: str) -> str:
    """xtext (RFC 3461 section 4) → text; what would not be printable ASCII stays encoded, so that no line can be injected."""
    return _HEX.sub(lambda match: chr(code) if 32 < (code := int(match[1], 16)) < 127 else match[0], text)


def _date(ms: int) -> str:
    return format_datetime(datetime.fromtimestamp(ms / 1000, UTC))
