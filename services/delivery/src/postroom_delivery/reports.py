"""Reads what comes back about messages: DSNs of other servers (RFC 3464, RFC 6533) and complaints (ARF, RFC 5965). Pure and bounded.

A report is written by strangers. What it says about an address counts only with a return path of ours that is proven (verp), to which it came or
which it quotes, or with the id of a message of ours in a Received field of the returned header and a person who vouches for it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes, message_from_string
from email.message import Message

from postroom_core.ids import is_message_id
from postroom_core.reply import Reply

# A complaint returns a whole message; what comes behind this is not needed to know which one.
MOST_REPORT = 512 * 1024
# A report has three parts, and a returned message some more; thousands are an attack on the parser.
_MOST_BOUNDARIES = 100
_MOST_RECIPIENTS = 100
_MOST_TEXT = 1000
_MOST_PATHS = 10
_ID = re.compile(r"\bid ([0-9A-Z]{26})\b")
_DIAGNOSTIC = re.compile(r"(?P<code>[45]\d\d)[ -](?:(?P<enhanced>[45]\.\d{1,3}\.\d{1,3})\s+)?(?P<text>.*)", re.DOTALL)
_QUOTED = re.compile(r"\b(5[05]\d)[ -](5\.\d{1,3}\.\d{1,3})\s+([^\r\n]*)")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


@dataclass(frozen=True, slots=True)
class Failure:
    """One recipient that failed. `reply` is the diagnostic as a reply, made of the status when there is none."""

    address: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Bounce:
    """A DSN about failures; `message_id` "" when the report does not say which message of ours.

    `return_paths`, here and below, are the reverse-paths that the report quotes.
    """

    message_id: str
    failures: tuple[Failure, ...]
    return_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Complaint:
    """`addresses` may be empty: providers blot them out."""

    message_id: str
    feedback_type: str
    addresses: tuple[str, ...]
    text: str
    return_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """No report that we know, or one that needs nothing: a delay, a success. `text` is its beginning, for people.

    `reply` is a refusal that stands in the text of a bounce without the form of RFC 3464.
    """

    message_id: str
    text: str
    return_paths: tuple[str, ...] = ()
    reply: Reply | None = None


Report = Bounce | Complaint | Unknown


def parse(content: bytes) -> Report:
    """What a message says. Never raises: what cannot be read is Unknown."""
    content = content[:MOST_REPORT]
    if content.count(b"boundary") > _MOST_BOUNDARIES:
        return Unknown("", "a message with too many parts")
    try:
        return _parse(message_from_bytes(content))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # what email's parser raises on broken input
        return Unknown("", f"a message that cannot be read ({type(error).__name__})")


def _parse(message: Message) -> Report:
    returned = list(_returned(message))
    message_id = _message_id(returned)
    paths = tuple(_address(str(value)) for header in returned for value in header.get_all("Return-Path", []))[:_MOST_PATHS]
    kind = str(message.get_param("report-type") or "").lower() if message.get_content_type() == "multipart/report" else ""
    parts = list(message.walk())[1:]
    if kind == "delivery-status":
        failures = [found for part in parts if part.get_content_type().endswith("delivery-status") for found in _failures(part)]
        if failures:
            return Bounce(message_id, tuple(failures[:_MOST_RECIPIENTS]), paths)
        return Unknown(message_id, _clean(f"{message.get('Subject', '')}: {_text(message)}"), paths)
    if kind == "feedback-report":
        report = next((_fields(part) for part in parts if part.get_content_type() == "message/feedback-report"), None)
        if report is not None and report.get("Feedback-Type"):
            addresses = [_address(str(value)) for value in report.get_all("Original-Rcpt-To", [])][:_MOST_RECIPIENTS]
            by = f"{report.get('User-Agent', 'unknown')}, {report.get('Reported-Domain', '')}".strip(", ")
            found = tuple(address for address in addresses if "@" in address)
            quoted = tuple(_address(str(value)) for value in report.get_all("Original-Mail-From", []))[:_MOST_PATHS]
            return Complaint(message_id, _clean(str(report["Feedback-Type"])).lower(), found, _clean(f"reported by {by}"), quoted + paths)
    text = _text(message)
    return Unknown(message_id, _clean(f"{message.get('Subject', '')}: {text}"), paths, _refusal(text))


def _refusal(text: str) -> Reply | None:
    """The first reply that is final, as hosts quote it in bounces of their own form."""
    found = _QUOTED.search(text)
    return Reply(int(found[1]), found[2], _clean(found[3])) if found is not None else None


def _failures(part: Message) -> Iterator[Failure]:
    for group in _groups(part):
        if str(group.get("Action", "")).strip().lower() != "failed" or not group.get("Final-Recipient"):
            continue
        status = _STATUS.search(str(group.get("Status", "")))
        diagnostic = _DIAGNOSTIC.search(_clean(str(group.get("Diagnostic-Code", ""))))
        enhanced = status[0] if status is not None else ""
        if diagnostic is not None:
            reply = Reply(int(diagnostic["code"]), diagnostic["enhanced"] or enhanced, diagnostic["text"])
        else:
            reply = Reply(550, enhanced, _clean(str(group.get("Diagnostic-Code", ""))) or "the report gives no reply")
        original = str(group.get("Original-Recipient", ""))
        yield Failure(_address((original or str(group["Final-Recipient"])).partition(";")[2]), reply)


def _groups(part: Message) -> list[Message]:
    """The groups of fields of a status part. The library divides the ASCII form; the UTF-8 form it takes for a message, or for text when encoded."""
    payload = part.get_payload()
    if isinstance(payload, list) and part.get_content_type() == "message/delivery-status":
        return [group for group in payload if isinstance(group, Message)]
    whole = payload[0] if isinstance(payload, list) and payload else None
    text = whole.as_bytes().decode("utf-8", "replace") if isinstance(whole, Message) else _decoded(part)
    return [message_from_string(group) for group in re.split(r"\r?\n\r?\n", text)]


def _fields(part: Message) -> Message:
    payload = part.get_payload()
    if isinstance(payload, list) and payload and isinstance(payload[0], Message):
        return payload[0]
    return message_from_string(_decoded(part).strip())


def _returned(message: Message) -> Iterator[Message]:
    """The headers of what is inside: the returned message or its header block, and parts that have neither."""
    for part in message.walk():
        if part is not message:
            headers_only = part.get_content_type() in ("text/rfc822-headers", "message/global-headers")
            yield message_from_string(_decoded(part)) if headers_only else part


def _message_id(returned: Iterable[Message]) -> str:
    """The id in a Received field."""
    for header in returned:
        for received in header.get_all("Received", []):
            found = _ID.search(str(received))
            if found is not None and is_message_id(found[1]):
                return found[1]
    return ""


def _decoded(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else str(part.get_payload())


def _text(message: Message) -> str:
    return next((_decoded(part)[: 2 * _MOST_TEXT] for part in message.walk() if part.get_content_maintype() == "text"), "")


def _address(text: str) -> str:
    return _clean(text).strip("<> ")[:320]


def _clean(text: str) -> str:
    return " ".join(text.split())[:_MOST_TEXT]
