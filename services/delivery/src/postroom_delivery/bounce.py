"""Builds delivery status notifications (RFC 3464, RFC 3461). Pure: data in, header block and body out.

A DSN has the null reverse-path, goes to the reverse-path of the message, and is never made for a message that had the null reverse-path itself
(RFC 5321 section 6.1): whoever settles puts those on the dead-letter list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from postroom_delivery.spool.model import Claim

# Returned content beyond this helps nobody and doubles the traffic of an attack; headers are always returned.
MOST_RETURNED = 1024 * 1024
_WORDS = {
    "failed": "could not be delivered to the following recipients. No further attempt will be made.",
    "relayed": "was handed to a host that does not send delivery notices, for the following recipients.",
}
_SUBJECTS = {"failed": "Undelivered mail returned to sender", "relayed": "Mail relayed"}


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient's fate: `action` failed or relayed, `status` enhanced code, `remote` the host that answered, `diagnostic` its reply."""

    claim: Claim
    action: str
    status: str
    text: str
    remote: str = ""
    diagnostic: str = ""


@dataclass(frozen=True, slots=True)
class Original:
    """What a DSN needs of the message it is about; `body` None returns headers only (RET=HDRS, or too large)."""

    id: str
    reverse_path: str
    envid: str
    received_at: int
    headers: bytes
    body: bytes | None = None


def build(original: Original, reports: Sequence[Report], own_name: str, notice_id: str, now: int) -> tuple[bytes, bytes]:
    """(header block, body) of the DSN about `reports`, which share one action."""
    action = reports[0].action
    boundary = f"=_{notice_id}"
    headers = "\r\n".join(
        (
            f"Date: {_date(now)}",
            f"From: Mail Delivery System <MAILER-DAEMON@{own_name}>",
            f"To: <{original.reverse_path}>",
            f"Subject: {_SUBJECTS[action]}",
            f"Message-ID: <{notice_id}@{own_name}>",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
            "",
        )
    )
    parts = (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + _words(original, reports, own_name),
        b"Content-Type: message/delivery-status\r\n\r\n" + _status(original, reports, own_name),
        _returned(original),
    )
    delimiter = f"--{boundary}\r\n".encode()
    return headers.encode("ascii"), b"".join(delimiter + part for part in parts) + f"--{boundary}--\r\n".encode()


def _words(original: Original, reports: Sequence[Report], own_name: str) -> bytes:
    lines = [
        f"This is the mail system of {own_name}.",
        "",
        "Your message",
        f"  of {_date(original.received_at)} (id {original.id})",
        _WORDS[reports[0].action],
        "",
    ]
    for report in reports:
        lines += [f"<{report.claim.address}>", *(f"    {line}" for line in _folded(report.text)), ""]
    return ("\r\n".join(lines) + "\r\n").encode("ascii", "replace")


def _status(original: Original, reports: Sequence[Report], own_name: str) -> bytes:
    """RFC 3464 sections 2.2 and 2.3: one group for the message, one for each recipient."""
    lines = [f"Reporting-MTA: dns; {own_name}", f"X-Postroom-Message-ID: {original.id}", f"Arrival-Date: {_date(original.received_at)}"]
    if original.envid:
        lines.insert(0, f"Original-Envelope-Id: {_unxtext(original.envid)}")
    for report in reports:
        lines.append("")
        if report.claim.orcpt:
            kind, _, address = report.claim.orcpt.partition(";")
            lines.append(f"Original-Recipient: {kind};{_unxtext(address)}")
        lines += [f"Final-Recipient: rfc822; {report.claim.address}", f"Action: {report.action}", f"Status: {report.status}"]
        if report.remote:
            lines.append(f"Remote-MTA: dns; {report.remote.partition('[')[0]}")
        if report.diagnostic:
            lines.append("Diagnostic-Code: smtp; " + "\r\n ".join(_folded(report.diagnostic)))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii", "replace")


def _returned(original: Original) -> bytes:
    if original.body is not None:
        return b"Content-Type: message/rfc822\r\n\r\n" + original.headers + b"\r\n" + original.body
    return b"Content-Type: text/rfc822-headers\r\n\r\n" + original.headers


def _folded(text: str, width: int = 72) -> list[str]:
    """Words in lines of at most `width`, longer words cut: whatever a peer said, our lines stay short and hold no control character."""
    lines = [""]
    for word in "".join(c if c.isprintable() else " " for c in text).split():
        for piece in (word[i : i + width] for i in range(0, len(word), width)):
            if lines[-1] and len(lines[-1]) + 1 + len(piece) > width:
                lines.append(piece)
            else:
                lines[-1] = f"{lines[-1]} {piece}".strip()
    return lines


def _unxtext(text: str) -> str:
    """RFC 3461 section 4: +XX is an octet; one that would be a control character stays encoded, so that nothing can be injected."""
    out, rest = [], text
    while "+" in rest:
        before, _, rest = rest.partition("+")
        out.append(before)
        code = rest[:2]
        if len(code) == 2 and all(c in "0123456789ABCDEF" for c in code) and 32 < int(code, 16) < 127:
            out.append(chr(int(code, 16)))
            rest = rest[2:]
        else:
            out.append("+")
    return "".join([*out, rest])


def _date(ms: int) -> str:
    return format_datetime(datetime.fromtimestamp(ms / 1000, UTC))
