"""The client's side of SMTP without sockets: parsing replies, reading EHLO, building commands, stuffing dots. Pure.

What a peer sends is bounded here (A19): the length of a line, the number of lines, the code. What we send is checked here a last time: no
control character can leave in a command (A7).
"""

import re
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
        return int(value) if value.isdigit() and len(value) < 16 else 0


def parse_ehlo(reply: Reply) -> Extensions:
    """The extensions of an EHLO reply; its first line is the peer's name."""
    keywords = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, parameters = line.partition(" ")
        keywords[keyword.upper()] = parameters.strip()
    return Extensions(keywords)


def command(text: str) -> bytes:
    """A command line. Raises ValueError for control and non-ASCII characters: nothing can be injected, whoever stored it."""
    if _CONTROL.search(text) or not text.isascii():
        raise ValueError("a command with a control or non-ASCII character")
    return text.encode("ascii") + b"\r\n"


def mail_command(message: ClaimedMessage, extensions: Extensions) -> bytes:
    """MAIL with SIZE, BODY and the DSN parameters that the peer understands (RFC 1870, 6152, 3461)."""
    parts = [f"MAIL FROM:<{message.reverse_path}>"]
    if "SIZE" in extensions:
        parts.append(f"SIZE={len(message.headers) + 2 + message.body_size}")
    if message.eight_bit and "8BITMIME" in extensions:
        parts.append("BODY=8BITMIME")
    if "DSN" in extensions:
        parts += [f"{name}={value}" for name, value in (("RET", message.ret), ("ENVID", message.envid)) if value]
    return command(" ".join(parts))


def rcpt_command(claim: Claim, extensions: Extensions) -> bytes:
    """RCPT, with NOTIFY and ORCPT octet for octet when the peer understands them (RFC 3461)."""
    parts = [f"RCPT TO:<{claim.address}>"]
    if "DSN" in extensions:
        parts += [f"{name}={value}" for name, value in (("NOTIFY", claim.notify), ("ORCPT", claim.orcpt)) if value]
    return command(" ".join(parts))


class DotStuffer:
    """Adds one dot to every line that begins with one (RFC 5321 section 4.5.2), over any division into chunks."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the start of the data is the start of a line

    @property
    def at_line_start(self) -> bool:
        """Whether the dot that ends the message may follow; else the last line has no CRLF (it came by BDAT) and needs one."""
        return self._tail == b"\r\n"

    def feed(self, chunk: bytes) -> bytes:
        whole = self._tail + chunk
        stuffed = whole.replace(b"\r\n.", b"\r\n..")
        out = stuffed[len(self._tail) :]
        self._tail = whole[-2:]
        return out
