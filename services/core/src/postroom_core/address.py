"""Mail addresses of the envelope: RFC 5321 Mailbox, strictly, ASCII only. Pure.

Nothing is decoded, dropped or repaired: an encoded-word, a comment, a source route, a control character or a folded space is no Mailbox, because
a lenient reader and a strict one would disagree about whose address it is (A6).
"""

import re
from dataclasses import dataclass

# RFC 5321 section 4.5.3.1: octets.
LOCAL, DOMAIN, PATH = 64, 255, 254
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf'{_ATEXT}(?:\.{_ATEXT})*|"(?:[ !#-\[\]-~]|\\[ -~])*"')
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# An encoded-word in a local part is legal atext; readers that decode it see another address (finding 1).
_ENCODED_WORD = re.compile(r"=\?.*\?.*\?.*\?=")


class BadAddress(ValueError):
    """Not a Mailbox; the text is one sentence that the client may see."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`local` as written, quotes kept; `domain` in lower case."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def parse_mailbox(text: str) -> Mailbox:
    """Raises BadAddress for what is no Mailbox, exceeds a limit, or has an address literal for a domain."""
    local, at, domain = text.rpartition("@")
    if not at or not local:
        raise BadAddress("The address has no local part and domain")
    if len(local) > LOCAL or len(domain) > DOMAIN or len(text) > PATH:
        raise BadAddress("The address is too long")
    if domain.startswith("["):
        raise BadAddress("Address literals are not accepted")
    if not _DOMAIN.fullmatch(domain):
        raise BadAddress("The domain of the address is not valid")
    if not _LOCAL.fullmatch(local) or _ENCODED_WORD.search(local):
        raise BadAddress("The local part of the address is not valid")
    return Mailbox(local, domain.lower())


def is_domain(text: str) -> bool:
    """Whether the text is a domain name as RFC 5321 has it."""
    return len(text) <= DOMAIN and _DOMAIN.fullmatch(text) is not None


def matches(mailbox: Mailbox, pattern: str) -> bool:
    """Whether `pattern`, an address or *@domain, means the mailbox. Domains compare without case, local parts too: no sender tells them apart."""
    local, _, domain = pattern.rpartition("@")
    return domain.lower() == mailbox.domain and (local == "*" or local.lower() == mailbox.local.lower())
