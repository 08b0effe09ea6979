"""The header block of a message: its fields, and whether they can be signed and sent on faithfully (RFC 5322, RFC 6376 section 5.3). Pure.

Used by ingress, which refuses before anything is stored, and by the signer, which refuses again before it signs: verifiers disagree about what
a malformed line means, so such a block must never carry our signature. Nothing is repaired here; fields keep their bytes.
"""

import re
from dataclasses import dataclass
from email.headerregistry import Address
from email.headerregistry import HeaderRegistry as _HeaderRegistry

from postroom_core.address import BadAddress, to_ascii

# RFC 5322 section 2.1.1, without CRLF.
LINE = 998
# Sections 3.6.1 to 3.6.5 and RFC 2045: at most one of each.
SINGLETONS = frozenset(
    b"date from sender reply-to to cc bcc message-id in-reply-to references subject mime-version content-type content-transfer-encoding".split()
)
# Vertical tab and form feed are white space to some verifiers and not to RFC 5322: a field that ends in one verifies here and fails there.
_FORBIDDEN = re.compile(rb"[\0\x0b\x0c\r\n]")
_NAME = re.compile(rb"[!-9;-~]+")
_REGISTRY = _HeaderRegistry()
# What nearly every From is: an address, or words of plain atoms and an address in angle brackets. Nothing in it can be read in two ways, so the
# library's parser, which costs more than the rest of the gate, is asked only about the others. A test holds both to the same answers.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_SPEC = rf"({_ATOM}(?:\.{_ATOM})*)@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)"
_PLAIN_FROM = re.compile(rf"{_SPEC}|(?:{_ATOM} )*<{_SPEC}>")


class MalformedHeader(ValueError):
    """The block cannot be signed or sent on faithfully; the text is one sentence that the client may see."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `name` as written, `raw` the whole of it with folding and the last CRLF."""

    name: bytes
    raw: bytes

    @property
    def key(self) -> bytes:
        """The name in lower case."""
        return self.name.lower()

    @property
    def value(self) -> bytes:
        """What stands after the colon, unfolded and stripped (RFC 5322 section 2.2.3)."""
        return self.raw[len(self.name) + 1 :].replace(b"\r\n", b"").strip(b" \t")


def parse(block: bytes) -> tuple[Field, ...]:
    """The fields of a block whose lines all end in CRLF, without the blank line. Raises MalformedHeader."""
    if not block:
        return ()
    if not block.endswith(b"\r\n"):
        raise MalformedHeader("The header is not ended by CRLF")
    fields: list[list[bytes]] = []
    for number, line in enumerate(block[:-2].split(b"\r\n"), 1):
        if len(line) > LINE:
            raise MalformedHeader(f"Header line {number} has more than {LINE} octets")
        if _FORBIDDEN.search(line):
            raise MalformedHeader(f"Header line {number} has a bare CR, a bare LF, a NUL, a vertical tab or a form feed")
        if line[:1] in (b" ", b"\t"):
            if not fields:
                raise MalformedHeader("The header begins with a continuation line")
            if not line.strip(b" \t"):
                raise MalformedHeader(f"Header line {number} is blank but for white space")
            fields[-1].append(line)
        else:
            fields.append([line])
    return tuple(_field(lines) for lines in fields)


def _field(lines: list[bytes]) -> Field:
    name, colon, _ = lines[0].partition(b":")
    if not colon or not _NAME.fullmatch(name):
        shown = lines[0][:40].decode("ascii", "backslashreplace")
        raise MalformedHeader(f"A header line is not NAME: VALUE, it begins with {shown!r}")
    return Field(name, b"\r\n".join(lines) + b"\r\n")


def check(fields: tuple[Field, ...]) -> None:
    """RFC 5322 section 3.6: exactly one From, at most one of each singleton. Raises MalformedHeader."""
    seen: set[bytes] = set()
    for field in fields:
        if field.key in SINGLETONS:
            if field.key in seen:
                raise MalformedHeader(f"The header has more than one {field.name.decode('ascii')} field")
            seen.add(field.key)
    if b"from" not in seen:
        raise MalformedHeader("The header has no From field")
    if not first(fields, b"from").value:
        raise MalformedHeader("The From field is empty")


def first(fields: tuple[Field, ...], key: bytes) -> Field:
    """The first field with this lower-case name. Raises KeyError when there is none."""
    for field in fields:
        if field.key == key:
            return field
    raise KeyError(key)


def from_address(fields: tuple[Field, ...], *, utf8: bool = False) -> tuple[tuple[str, str], ...]:
    """(local part, lower-case domain in A-labels) of every mailbox in From. Raises MalformedHeader when it cannot be read without guessing.

    Displayed names may hold anything; an address with a comment inside or a second "@" is refused, because readers disagree about whose it is, and
    so is one with octets outside ASCII unless the message came with SMTPUTF8 (`utf8`, RFC 6532).
    """
    value = first(fields, b"from").value.decode("utf-8", "replace")
    if (plain := _PLAIN_FROM.fullmatch(value)) is not None and "=?" not in value:
        local, domain = plain[1] or plain[3], plain[2] or plain[4]
        return ((local, domain.lower()),)
    addresses: tuple[Address, ...] = getattr(_REGISTRY("From", value), "addresses", ())
    found = []
    for address in addresses:
        spec = address.addr_spec
        if not address.domain or not address.username or not _readable(spec, utf8=utf8):
            raise MalformedHeader("The From field has an address that cannot be read")
        if f"{address.username}@{address.domain}".lower() not in value.replace('"', "").lower():
            raise MalformedHeader("The From field has an address that readers could understand differently")
        found.append((address.username, _ascii(address.domain).lower()))
    # Every "@" outside quotes and comments must belong to an address that was found: nothing may hide behind a syntax error.
    if not found or len(_bare(value).split("@")) - 1 != len(found):
        raise MalformedHeader("The From field has no address that can be read, or more than can be told apart")
    return tuple(found)


def _readable(spec: str, *, utf8: bool) -> bool:
    return (spec.isascii() or (utf8 and "\ufffd" not in spec)) and not any(c.isspace() or not c.isprintable() for c in spec)


def _ascii(domain: str) -> str:
    try:
        return to_ascii(domain)
    except BadAddress as error:
        raise MalformedHeader("The From field has an address whose domain is not valid") from error


def _bare(value: str) -> str:
    """The value without quoted strings; an "@" in a displayed name is only allowed inside of them."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', value)
