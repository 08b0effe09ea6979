"""The vocabulary of reply rules: classes, actions, and what a pattern may be. For the plan, which checks rules, and delivery, which applies them.

Patterns are RE2's, the dialect of CEL in Kubernetes: matching takes time linear in the text for every pattern, so neither a user's mistake nor a
peer's reply can stall delivery. What RE2 lacks for that (look-around, back-references) is refused with a sentence.
"""

from enum import Enum
from typing import Any

import re2

MOST_PATTERN = 256
# RE2's own budget for one compiled pattern; {n,m} of nested groups ends here instead of in memory.
_MOST_MEMORY = 1 << 20


class Class(Enum):
    """What a reply means. A closed list; documentation, events and metrics use the values."""

    SUCCESS = "success"
    THROTTLE = "throttle"
    GREYLIST = "greylist"
    MAILBOX_FULL = "mailbox-full"
    UNKNOWN_USER = "unknown-user"
    DISABLED = "disabled"
    BLOCKED = "blocked"
    AUTHENTICATION = "authentication"
    POLICY = "policy"
    CONTENT = "content"
    TOO_LARGE = "too-large"
    NETWORK = "network"
    DNS = "dns"
    TLS = "tls"
    OTHER = "other"


class Action(Enum):
    """What is done about it. A closed list; see docs/replies.md."""

    RETRY = "retry"
    RETRY_SLOWLY = "retry-slowly"
    REDUCE_RATE = "reduce-rate"
    SUSPEND = "suspend"
    BOUNCE = "bounce"
    SUPPRESS = "suppress"
    ALERT = "alert"


def compile_pattern(pattern: str) -> Any:
    """A case-insensitive pattern with `search`. Raises ValueError with one sentence."""
    if len(pattern) > MOST_PATTERN:
        raise ValueError(f"a pattern has at most {MOST_PATTERN} characters")
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = _MOST_MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(f"not an RE2 pattern: {reason.decode() if isinstance(reason, bytes) else reason}") from None
