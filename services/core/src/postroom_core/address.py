"""Mail addresses of the envelope: RFC 5321 Mailbox, strictly, and RFC 6531 where the transaction has SMTPUTF8. Pure.

Nothing is decoded, dropped or repaired: an encoded-word, a comment, a source route, a control character or a folded space is no Mailbox, because
a lenient reader and a strict one would disagree about whose address it is (A6). A local part keeps its octets; a domain of U-labels becomes its
A-labels, which every hop and the DNS understand (RFC 5891), so that an address needs SMTPUTF8 only for its local part.
"""

import re
import unicodedata
from dataclasses import dataclass

import idna

# RFC 5321 section 4.5.3.1: octets.
LOCAL, DOMAIN, PATH = 64, 255, 254
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf'{_ATEXT}(?:\.{_ATEXT})*|"(?:[ !#-\[\]-~]|\\[ -~])*"')
_ATEXT_UTF8 = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010FFFF-]+"
_LOCAL_UTF8 = re.compile(rf'{_ATEXT_UTF8}(?:\.{_ATEXT_UTF8})*|"(?:[ !#-\[\]-~\u0080-\U0010FFFF]|\\[ -~])*"')
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# An encoded-word in a local part is legal atext; readers that decode it see another address (finding 1).
_ENCODED_WORD = re.compile(r"=\?.*\?.*\?.*\?=")
# Invisible, but letters of some scripts are written with them; every other invisible character only hides what an address is.
_JOINERS = frozenset("\u200c\u200d")


class BadAddress(ValueError):
    """Not a Mailbox; the text is one sentence that the client may see."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`local` as written, quotes kept; `domain` in lower case and A-labels."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def parse_mailbox(text: str, *, utf8: bool = False) -> Mailbox:
    """Raises BadAddress for what is no Mailbox, exceeds a limit, or has an address literal for a domain. `utf8` is RFC 6531 section 3.3."""
    local, at, domain = text.rpartition("@")
    if not at or not local:
        raise BadAddress("The address has no local part and domain")
    if max(_octets(local) - LOCAL, _octets(domain) - DOMAIN, _octets(text) - PATH) > 0:
        raise BadAddress("The address is too long")
    if domain.startswith("["):
        raise BadAddress("Address literals are not accepted")
    if utf8:
        domain = to_ascii(domain)
    if not _DOMAIN.fullmatch(domain):
        raise BadAddress("The domain of the address is not valid")
    if not (_LOCAL_UTF8 if utf8 else _LOCAL).fullmatch(local) or _ENCODED_WORD.search(local) or not _visible(local):
        raise BadAddress("The local part of the address is not valid")
    return Mailbox(local, domain.lower())


def to_ascii(domain: str) -> str:
    """The A-labels of a domain (IDNA 2008 with the mapping of UTS 46). Raises BadAddress."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
    except idna.IDNAError as error:
        raise BadAddress("The domain of the address is not valid") from error


def _octets(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _visible(text: str) -> bool:
    return all(character.isprintable() or character in _JOINERS for character in text)


def is_domain(text: str) -> bool:
    """Whether the text is a domain name as RFC 5321 has it."""
    return len(text) <= DOMAIN and _DOMAIN.fullmatch(text) is not None


def matches(mailbox: Mailbox, pattern: str) -> bool:
    """Whether `pattern`, an address or *@domain, means the mailbox. Domains compare without case, local parts too: no sender tells them apart."""
    local, _, domain = pattern.rpartition("@")
    return domain.lower() == mailbox.domain and (local == "*" or _folded(local) == _folded(mailbox.local))


def _folded(local: str) -> str:
    return local.lower() if local.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())
