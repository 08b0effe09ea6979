"""The client's side of SMTP without sockets: parsing replies, reading EHLO, building commands, stuffing dots. Pure.

What a peer sends is bounded here (A19): the length of a line, the number of lines, the code. What we send is checked here a last time: no
control character can leave in a command (A7).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from postroom_core.reply import Reply
from postroom_delivery.spool.model import Claim, ClaimedMessage

# RFC 5321 section 4.5.3.1.5 says 512; real peers send more, and 2 KiB is enough for every text that helps a person.
REPLY_LINE = 2048
# Longer replies are a flood; the longest EHLO in the field has some 30 lines.
REPLY_LINES = 100

_LINE = re.compile(rb"([2-5]\d\d)([ -]?)(.*)", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# A limit that is not announced, or no number above zero.
UNLIMITED = 1 << 31


class ProtocolError(Exception):
    """The peer's answer is no SMTP; the connection must be closed, because later answers could be paired with the wrong command."""


def parse_line(line: bytes) -> tuple[int, bool, str]:
    """(code, whether more lines follow, text). Raises ProtocolError."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProtocolError("a line that is no SMTP reply")
    code, separator, text = match.groups()
    return int(code), separator == b"-", text.decode("utf-8", "replace").strip()


def assemble(lines: list[tuple[int, bool, str]]) -> Reply:
    """One reply of its lines. Raises ProtocolError when the codes differ."""
    code = lines[0][0]
    if any(line[0] != code for line in lines):
        raise ProtocolError("a reply whose lines have different codes")
    texts, enhanced = [], ""
    for _, _, line in lines:
        text = line
        if (match := _ENHANCED.match(text)) and match[1][0] == str(code)[0]:
            enhanced = enhanced or match[1]
            text = text[match.end() :]
        texts.append(_CONTROL.sub(" ", text))
    return Reply(code, enhanced, "\n".join(texts))


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a peer announced: keyword in upper case → parameters."""

    keywords: dict[str, str]

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def size(self) -> int:
        """The peer's limit in octets; 0 is none announced (RFC 1870)."""
        value = self.keywords.get("SIZE", "")
        return int(value) if value.isdigit() and value.isascii() and len(value) < 16 else 0

    def limit(self, name: str) -> int:
        """A limit of RFC 9422 (RCPTMAX, MAILMAX, RCPTDOMAINMAX); UNLIMITED when the peer announces none."""
        for part in self.keywords.get("LIMITS", "").upper().split():
            keyword, _, value = part.partition("=")
            if keyword == name and value.isdigit() and value.isascii() and len(value) < 7:  # RFC 9422 section 3: at most 6 digits
                return int(value) or UNLIMITED
        return UNLIMITED


def parse_ehlo(reply: Reply) -> Extensions:
    """The extensions of an EHLO reply; its first line is the peer's name."""
    keywords = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, parameters = line.partition(" ")
        keywords[keyword.upper()] = parameters.strip()
    return Extensions(keywords)


def is_clean(text: str) -> bool:
    """Whether a stored text may become part of a command."""
    return _CONTROL.search(text) is None and not any("\ud800" <= character <= "\udfff" for character in text)


def command(text: str, *, utf8: bool = False) -> bytes:
    """A command line; `utf8` where the peer offered SMTPUTF8 and the transaction uses it.

    Raises ValueError for control characters, and for others outside of ASCII unless `utf8`: nothing can be injected, whoever stored it.
    """
    if not is_clean(text) or not (utf8 or text.isascii()):
        raise ValueError("a command with a control or non-ASCII character")
    return text.encode() + b"\r\n"


def mail_command(message: ClaimedMessage, extensions: Extensions, wishes: Sequence[str] = (), *, utf8: bool) -> bytes:
    """MAIL with what the peer understands of SIZE, BODY, RET, ENVID and REQUIRETLS (RFC 1870, 6152, 3030, 3461, 8689); SMTPUTF8 if `utf8`.

    `wishes` are further parameters, see postroom_delivery.needs.
    """
    parts = [f"MAIL FROM:<{message.reverse_path}>"]
    if "SIZE" in extensions:
        parts.append(f"SIZE={len(message.headers) + 2 + message.body_size}")
    if message.options.binary and "BINARYMIME" in extensions:
        parts.append("BODY=BINARYMIME")
    elif message.eight_bit and "8BITMIME" in extensions:
        parts.append("BODY=8BITMIME")
    if utf8:
        parts.append("SMTPUTF8")
    if "DSN" in extensions:
        parts += [f"{name}={value}" for name, value in (("RET", message.ret), ("ENVID", message.envid)) if value]
    if message.options.require_tls and "REQUIRETLS" in extensions:
        parts.append("REQUIRETLS")
    return command(" ".join([*parts, *wishes]), utf8=utf8)


def rcpt_command(claim: Claim, extensions: Extensions, *, utf8: bool) -> bytes:
    """RCPT, with NOTIFY and ORCPT octet for octet when the peer understands them (RFC 3461)."""
    parts = [f"RCPT TO:<{claim.address}>"]
    if "DSN" in extensions:
        orcpt = claim.orcpt if utf8 else _embedded(claim.orcpt)
        parts += [f"{name}={value}" for name, value in (("NOTIFY", claim.notify), ("ORCPT", orcpt)) if value]
    return command(" ".join(parts), utf8=utf8)


def _embedded(orcpt: str) -> str:
    """An internationalized ORCPT in its ASCII form (RFC 6533 section 3, utf-8-addr-xtext); others unchanged."""
    return "".join(character if character.isascii() else f"\\x{{{ord(character):X}}}" for character in orcpt)


class DotStuffer:
    """Adds one dot to every line that begins with one (RFC 5321 section 4.5.2), over any division into chunks."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the start of the data is the start of a line

    @property
    def at_line_start(self) -> bool:
        """Whether the dot that ends the message may follow; else the last line has no CRLF (it came by BDAT) and needs one."""
        return self._tail == b"\r\n"

    def feed(self, chunk: bytes) -> bytes:
        if b"\r\n." not in chunk and b"\r\n." not in self._tail + chunk[:2]:  # nothing to do, and nothing to copy
            self._tail = (self._tail + chunk[-2:])[-2:]
            return chunk
        whole = self._tail + chunk
        stuffed = whole.replace(b"\r\n.", b"\r\n..")
        out = stuffed[len(self._tail) :]
        self._tail = whole[-2:]
        return out


class LineEnds:
    """Says whether every CR and LF is part of a CRLF, over any division into chunks: what a weak receiver could take for an end of data (A2)."""

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, chunk: bytes) -> bool:
        """False when a bare one has come; a CR at the end is judged with the next chunk."""
        text = self._carry + chunk
        self._carry = b"\r" if text.endswith(b"\r") else b""
        pairs = text.count(b"\r\n")
        return text.count(b"\n") == pairs and text.count(b"\r") - len(self._carry) == pairs
