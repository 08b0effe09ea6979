"""What a reply means: one class of a closed list, from code, enhanced code and text. Pure; the table is read from top to bottom.

The class is told in events and decides what else happens: `throttle` and `network` leave the whole destination alone for a while. Whether an
attempt is final follows from the code alone (RFC 5321 section 4.2.1): unknown texts never make a 4xx permanent.
"""

import re
from enum import Enum

from postroom_core.reply import Reply


class Class(Enum):
    """Closed list; documentation and metrics use the values."""

    SUCCESS = "success"
    THROTTLE = "throttle"
    GREYLIST = "greylist"
    MAILBOX_FULL = "mailbox-full"
    UNKNOWN_USER = "unknown-user"
    POLICY = "policy"
    CONTENT = "content"
    NETWORK = "network"
    DNS = "dns"
    TLS = "tls"
    OTHER = "other"


# (digit or "", enhanced code pattern, text pattern) → class; the first row whose three parts fit wins.
_TABLE: tuple[tuple[str, str, str, Class], ...] = (
    ("4", "", r"gr[ae]y.?list|try again (in|after) \d+ (s|min)", Class.GREYLIST),
    ("", r"[45]\.2\.2", "", Class.MAILBOX_FULL),
    ("", "", r"(mailbox|quota).{0,20}(full|exceed)|over ?quota", Class.MAILBOX_FULL),
    ("", "", r"blocked using|blocklist|blacklist|spamhaus|dnsbl|\brbl\b|poor reputation|reputation", Class.POLICY),
    ("4", r"4\.7\.\d+", "", Class.THROTTLE),
    ("4", "", r"too many (connections|messages|recipients)|rate.?limit|throttl|slow down|temporarily deferred|too (much|many)", Class.THROTTLE),
    ("5", r"5\.1\.(1|2|3|6|10)", "", Class.UNKNOWN_USER),
    (
        "5",
        "",
        r"(user|mailbox|recipient|account|address).{0,30}(unknown|not found|does ?n.t exist|not exist|unavailable|invalid|disabled)",
        Class.UNKNOWN_USER,
    ),
    ("5", "", r"(unknown|no such|invalid) (user|mailbox|recipient|account|address)", Class.UNKNOWN_USER),
    ("", r"[45]\.7\.(10|11)", "", Class.TLS),
    ("", "", r"spam|junk|virus|malware|phish|content (rejected|not allowed)", Class.CONTENT),
    ("", r"[45]\.6\.\d+", "", Class.CONTENT),
    ("5", r"5\.7\.\d+", "", Class.POLICY),
    ("", "", r"policy|denied|not allowed|unauthenticated|dmarc|\bspf\b|\bdkim\b", Class.POLICY),
    ("421", "", "", Class.THROTTLE),
)
_COMPILED = tuple((code, re.compile(enhanced), re.compile(text, re.IGNORECASE), cls) for code, enhanced, text, cls in _TABLE)


def classify(reply: Reply) -> Class:
    """The class of a peer's reply."""
    if reply.kind == 2:
        return Class.SUCCESS
    for code, enhanced, text, found in _COMPILED:
        if str(reply.code).startswith(code) and (not enhanced.pattern or enhanced.fullmatch(reply.enhanced)) and text.search(reply.text):
            return found
    return Class.OTHER
