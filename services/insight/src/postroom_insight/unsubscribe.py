"""Is a message ready for one-click unsubscribing and for the rules of large receivers? Reads a header block, never fetches a URI. Pure.

RFC 8058: one https URI in List-Unsubscribe, `List-Unsubscribe-Post: List-Unsubscribe=One-Click`, both covered by a DKIM signature. RFC 9477: a
CFBL-Address belongs to the domain that signs.
"""

import email.utils
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from postroom_core import headers
from postroom_insight import tags
from postroom_insight.finding import Finding, Grade

_URI = re.compile(r"<\s*([^<>]*?)\s*>")
# Gmail refuses larger header blocks; others have no lower published limit.
MOST_HEADER = 500_000
LONG_HEADER = 64 * 1024
_COVERED = ("list-unsubscribe", "list-unsubscribe-post")


@dataclass(frozen=True, slots=True)
class _Message:
    fields: tuple[headers.Field, ...]
    size: int

    def values(self, key: str) -> list[str]:
        return [field.value.decode("utf-8", "replace") for field in self.fields if field.key == key.encode()]


def findings(content: bytes, domain: str) -> list[Finding]:
    """Of a whole message or a header block, lines ended by LF or CRLF. `domain` is the MailDomain that signs it."""
    block = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0].rstrip(b"\r\n") + b"\n"
    block = re.sub(rb"\r?\n", b"\r\n", block)
    try:
        fields = headers.parse(block)
        headers.check(fields)
        authors = headers.from_address(fields)
    except headers.MalformedHeader as error:
        return [Finding("message", "header", Grade.FAIL, str(error), "a header that can be signed (RFC 5322)", rule="RFC 5322 section 3.6")]
    message = _Message(fields, len(block))
    return [_author(authors, domain), _size(message), *_one_click(message), *_feedback(message, domain)]


def _author(authors: tuple[tuple[str, str], ...], domain: str) -> Finding:
    seen = ", ".join(f"{local}@{name}" for local, name in authors)
    wanted = f"one address at {domain} or below it"
    if len({name for _, name in authors}) > 1:
        return Finding("message", "From", Grade.FAIL, seen, wanted, rule="RFC 9989: one author domain")
    below = all(name == domain or name.endswith(f".{domain}") for _, name in authors)
    return Finding("message", "From", Grade.PASS if below else Grade.FAIL, seen, "" if below else wanted, rule="RFC 9989 section 4.4")


def _size(message: _Message) -> Finding:
    grade = Grade.FAIL if message.size > MOST_HEADER else Grade.ADVICE if message.size > LONG_HEADER else Grade.PASS
    wanted = "" if grade is Grade.PASS else f"a header of at most {LONG_HEADER} octets"
    return Finding("message", "header", grade, f"{message.size} octets in {len(message.fields)} fields", wanted)


def _one_click(message: _Message) -> list[Finding]:
    lists, posts = message.values("list-unsubscribe"), message.values("list-unsubscribe-post")
    if not lists:
        wanted = "List-Unsubscribe: <https://…> with List-Unsubscribe-Post: List-Unsubscribe=One-Click, if this is marketing or a newsletter"
        return [
            Finding("unsubscribe", "List-Unsubscribe", Grade.ADVICE, "not there", wanted, rule="RFC 8058; Gmail and Yahoo demand it of bulk mail")
        ]
    found = []
    uris = _URI.findall(lists[0])
    secure = [uri for uri in uris if urlsplit(uri).scheme == "https" and urlsplit(uri).hostname]
    good = len(lists) == 1 and len(secure) == 1
    wanted = "" if good else "one field with exactly one https URI"
    grade = Grade.PASS if good else Grade.FAIL
    found.append(Finding("unsubscribe", "List-Unsubscribe", grade, ", ".join(lists)[:200], wanted, rule="RFC 8058 section 3.1"))
    right = len(posts) == 1 and posts[0].replace(" ", "").lower() == "list-unsubscribe=one-click"
    wanted = "" if right else "List-Unsubscribe-Post: List-Unsubscribe=One-Click"
    grade = Grade.PASS if right else Grade.FAIL
    found.append(Finding("unsubscribe", "List-Unsubscribe-Post", grade, ", ".join(posts) or "not there", wanted, rule="RFC 8058 section 3.1"))
    return [*found, *_covered(message)]


def _covered(message: _Message) -> list[Finding]:
    """Postroom signs both fields when it sends; a file that is signed already tells whether its signer did."""
    signatures = [tags.parse(value) or {} for value in message.values("dkim-signature")]
    if not signatures:
        return []
    covering = [s for s in signatures if all(name in [part.strip().lower() for part in s.get("h", "").split(":")] for name in _COVERED)]
    grade, wanted = (Grade.PASS, "") if covering else (Grade.FAIL, f"a signature whose h= names {' and '.join(_COVERED)}")
    return [
        Finding(
            "unsubscribe", "DKIM-Signature", grade, f"{len(covering)} of {len(signatures)} signatures cover both", wanted, rule="RFC 8058 section 4"
        )
    ]


def _feedback(message: _Message, domain: str) -> list[Finding]:
    addresses = message.values("cfbl-address")
    if not addresses:
        return []
    target = email.utils.parseaddr(addresses[0].partition(";")[0])[1].rpartition("@")[2].lower()
    good = len(addresses) == 1 and (target == domain or target.endswith(f".{domain}"))
    wanted = "" if good else f"one CFBL-Address at {domain} or below it, the domain that signs"
    return [Finding("feedback", "CFBL-Address", Grade.PASS if good else Grade.FAIL, ", ".join(addresses), wanted, rule="RFC 9477 section 3.1")]
