"""Stamping: the header block as it will be sent. Pure; fields of the client keep their bytes.

Every message gets one Received in front (RFC 5321 section 4.4, RFC 3848, RFC 6531 section 4.3, RFC 8314 section 4.3). Submission also adds Date
and Message-ID where they are missing and removes Bcc and Return-Path (RFC 6409 section 8); relay ports never do. Results of authentication that
claim to be ours are removed everywhere (RFC 8601 section 5).
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from postroom_core.headers import Field

_UNSAFE = re.compile(r"[^A-Za-z0-9.:\-_\[\]]")


@dataclass(frozen=True, slots=True)
class Trace:
    """What Received tells. `recipient` only when there is exactly one: more would reveal Bcc. `received_at` in Unix milliseconds."""

    helo: str
    client: str
    own_name: str
    message_id: str
    received_at: int
    esmtp: bool
    tls_cipher: str
    authenticated: bool
    recipient: str
    utf8: bool = False  # the transaction has SMTPUTF8
    http: bool = False  # it came by HTTP


def received(trace: Trace) -> bytes:
    """The Received field."""
    protocol = "SMTP" if not trace.esmtp else "UTF8SMTP" if trace.utf8 else "ESMTP"
    if trace.http:
        protocol = "HTTP"
    elif trace.esmtp:
        protocol += ("S" if trace.tls_cipher else "") + ("A" if trace.authenticated else "")
    client = f"IPv6:{trace.client}" if ":" in trace.client else trace.client
    lines = [f"Received: from {_UNSAFE.sub('?', trace.helo)[:255]} ([{client}])", f"by {trace.own_name} with {protocol}"]
    if trace.tls_cipher:
        lines[-1] += f" tls {trace.tls_cipher}"
    lines.append(f"id {trace.message_id}")
    if trace.recipient:
        lines[-1] += f" for <{trace.recipient}>"
    return ("\r\n\t".join(lines) + f";\r\n\t{_date(trace.received_at)}\r\n").encode("utf-8")


def header_block(fields: Sequence[Field], trace: Trace, *, submission: bool) -> bytes:
    """All fields in the order in which they are sent, but the signatures, which go on top."""
    kept = [field for field in fields if not _ours(field, trace.own_name)]
    added = []
    if submission:
        kept = [field for field in kept if field.key not in (b"bcc", b"return-path")]
        present = {field.key for field in kept}
        if b"date" not in present:
            added.append(f"Date: {_date(trace.received_at)}\r\n".encode("ascii"))
        if b"message-id" not in present:
            added.append(f"Message-ID: <{trace.message_id}@{trace.own_name}>\r\n".encode("ascii"))
    return b"".join([received(trace), *added, *(field.raw for field in kept)])


def _ours(field: Field, own_name: str) -> bool:
    if field.key != b"authentication-results":
        return False
    return field.value.partition(b";")[0].strip().lower().split(b" ")[0] == own_name.encode("ascii")


def _date(ms: int) -> str:
    return _date_of_second(ms // 1000)


@functools.lru_cache(4)  # messages of one second share it
def _date_of_second(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))
