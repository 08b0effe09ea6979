"""Makes DKIM-Signature fields (RFC 6376, RFC 8463). Pure: fields, body hash, key and time in, one header field out.

Canonicalization is relaxed/relaxed. Every name of OVERSIGNED is listed once more than it occurs, absent names too, so that nobody can add a
second From or a List-Unsubscribe on the way and still have our signature pass. No l=: a body is signed whole. Received, Return-Path and Bcc are
never signed.
"""

import base64
import re
from collections.abc import Sequence
from typing import Protocol

from postroom_core.headers import Field

# R6376.2: what a reader sees or what steers a mail client. RFC 8058 demands both List-Unsubscribe fields.
OVERSIGNED = (
    b"from",
    b"subject",
    b"to",
    b"cc",
    b"date",
    b"reply-to",
    b"message-id",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"sender",
    b"in-reply-to",
    b"references",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
)
# Signed as often as they occur: RFC 9477 demands the CFBL fields, feedback loops read Feedback-ID, lists use the others.
SIGNED = frozenset(
    b"resent-date resent-from resent-sender resent-to resent-cc resent-message-id list-id list-help list-subscribe list-post list-owner list-archive "
    b"feedback-id cfbl-address cfbl-feedback-id autocrypt".split()
)
_WSP = re.compile(rb"[ \t]+")


class Key(Protocol):
    """A private key ready to sign."""

    @property
    def selector(self) -> str:
        """s="""

    @property
    def tag(self) -> str:
        """a=: rsa-sha256 or ed25519-sha256."""

    def sign(self, data: bytes) -> bytes:
        """The signature over the canonicalized header fields."""


def canonical(raw: bytes) -> bytes:
    """One field in relaxed form, CRLF included (RFC 6376 section 3.4.2)."""
    name, _, value = raw.partition(b":")
    unfolded = _WSP.sub(b" ", value.replace(b"\r\n", b""))
    return name.strip(b" \t").lower() + b":" + unfolded.strip(b" \t") + b"\r\n"


def chosen(fields: Sequence[Field]) -> list[tuple[bytes, Field | None]]:
    """What h= lists, in order: (name, field), None for the extra mention of an oversigned name.

    Of several fields with one name the last comes first, as verifiers take them (RFC 6376 section 5.4.2).
    """
    by_name: dict[bytes, list[Field]] = {}
    for field in fields:
        by_name.setdefault(field.key, []).append(field)
    listed: list[tuple[bytes, Field | None]] = []
    for name in OVERSIGNED:
        listed += [(name, field) for field in reversed(by_name.get(name, []))]
        listed.append((name, None))
    for name in sorted(SIGNED & by_name.keys()):
        listed += [(name, field) for field in reversed(by_name[name])]
    return listed


def signature_field(fields: Sequence[Field], body_sha256: bytes, domain: str, key: Key, now: int) -> bytes:
    """The whole DKIM-Signature field, folded, CRLF at its end. `now` is Unix seconds."""
    listed = chosen(fields)
    names = [name for name, _ in listed]
    unsigned = _fold(
        [f"v=1; a={key.tag}; c=relaxed/relaxed;", f"d={domain};", f"s={key.selector};", f"t={now};"],
        b":".join(names).decode("ascii"),
        f"bh={base64.b64encode(body_sha256).decode('ascii')};",
    )
    signed = b"".join(canonical(field.raw) for _, field in listed if field is not None)
    # The field itself goes last, with an empty b= and without CRLF (RFC 6376 section 3.7).
    signature = base64.b64encode(key.sign(signed + canonical(unsigned)[:-2])).decode("ascii")
    lines = [signature[at : at + 74] for at in range(0, len(signature), 74)]
    return unsigned + "\r\n\t".join(lines).encode("ascii") + b"\r\n"


def _fold(tags: list[str], names: str, body_hash: str) -> bytes:
    """The field up to and with `b=`: tags on one line where they fit, h= folded after colons, all lines under 78 columns where words allow."""
    lines = ["DKIM-Signature:"]
    for tag in tags:
        _append(lines, tag)
    for number, name in enumerate(names.split(":")):
        last = number == names.count(":")
        _append(lines, ("h=" if number == 0 else "") + name + (";" if last else ":"), glue="" if number else " ")
    _append(lines, body_hash)
    lines.append("b=")
    return "\r\n\t".join(lines).encode("ascii")


def _append(lines: list[str], word: str, glue: str = " ") -> None:
    if len(lines[-1]) + len(glue) + len(word) > 76:
        lines.append(word)
    else:
        lines[-1] += glue + word
