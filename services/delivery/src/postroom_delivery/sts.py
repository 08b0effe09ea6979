"""MTA-STS (RFC 8461): the record, the policy, which hosts it names, when to fetch it again. Pure; `sts_policies` fetches and keeps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

# RFC 8461 section 3.2: a year and a day; longer is an error of the domain, and means this.
MOST_AGE_SECONDS = 31_557_600
# Section 3.3: a policy that is in use is looked up anew about daily, so that an attacker must hold on as long as max_age to outlast it.
REFRESH_SECONDS = 86_400
# Section 3.3 again: after a failed fetch not at every message.
RETRY_SECONDS = 300
MOST_PATTERNS = 200

_RECORD = re.compile(r"v=STSv1[ \t]*;[ \t]*(.*)", re.DOTALL)
_ID = re.compile(r"id=([A-Za-z0-9]{1,32})")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*")


class Mode(Enum):
    """What a policy asks of senders."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class BadPolicy(ValueError):
    """A policy that says nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`patterns` are host names or *.domain, in lower case; `max_age` in seconds."""

    mode: Mode
    patterns: tuple[str, ...]
    max_age: int

    def names(self, host: str) -> bool:
        """Whether the policy lists an MX host (section 4.1): a wildcard stands for exactly one left-most label."""
        host = host.lower().rstrip(".")
        return any(host.partition(".")[2] == pattern[2:] if pattern.startswith("*.") else host == pattern for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Kept:
    """A fetched policy with the id of its record; times in Unix milliseconds. `text` is the policy as it came."""

    policy: Policy
    id: str
    text: str
    fetched_at: int

    @property
    def until(self) -> int:
        """When it may be applied no longer."""
        return self.fetched_at + self.policy.max_age * 1000

    def is_current(self, record_id: str, now: int) -> bool:
        """Whether nothing need be fetched: same id, not expired, looked at within a day."""
        return self.id == record_id and now < min(self.until, self.fetched_at + REFRESH_SECONDS * 1000)


def record_id(texts: Sequence[str]) -> str | None:
    """The id in the TXT records at _mta-sts (section 3.1); None without exactly one valid record."""
    records = [match[1] for match in map(_RECORD.fullmatch, texts) if match]
    if len(records) != 1:
        return None
    fields = [match[1] for match in (_ID.fullmatch(field.strip(" \t")) for field in records[0].split(";")) if match]
    return fields[0] if len(fields) == 1 else None


def parse(text: str) -> Policy:
    """A policy file (section 3.2). Raises BadPolicy."""
    values: dict[str, list[str]] = {}
    for line in text.replace("\r\n", "\n").split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(" \t"), []).append(value.strip(" \t"))
    if values.get("version", [])[:1] != ["STSv1"]:
        raise BadPolicy("no version STSv1")
    mode, age = (values.get(key, [""])[0] for key in ("mode", "max_age"))  # of a key given twice the first counts
    if mode not in {known.value for known in Mode}:
        raise BadPolicy(f"mode {mode[:20]!r} is none of enforce, testing, none")
    if not re.fullmatch(r"[0-9]{1,10}", age):
        raise BadPolicy("max_age is no number of seconds")
    patterns = tuple(pattern.lower().rstrip(".") for pattern in values.get("mx", []))
    if any(not _HOST.fullmatch(pattern) for pattern in patterns) or len(patterns) > MOST_PATTERNS:
        raise BadPolicy("an mx is no host name, or there are too many")
    if not patterns and mode != Mode.NONE.value:
        raise BadPolicy("no mx")
    return Policy(Mode(mode), patterns, min(int(age), MOST_AGE_SECONDS))
