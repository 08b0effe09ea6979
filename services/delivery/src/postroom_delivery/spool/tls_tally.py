"""Results of TLS sessions as rows to add, alike for both engines. Pure.

A domain can have few results in a day, or many: it chooses its hosts and certificates, and what goes wrong with them. So reasons are cut, and beyond
MOST_ROWS of a domain, day and process only the kinds of policy and result are told apart.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

# Twelve addresses for each attempt, each with some reasons: room for what an honest domain has, and 100 KiB at most for another.
MOST_ROWS = 100
MOST_REASON = 200

Row = tuple[str, str, str, str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class TlsSession:
    """How TLS went with one host, for the report of its domain (RFC 8460). `policy` is text of postroom_delivery.tlsrpt: its kind, then its lines.

    `result` is a result type of section 4.3, "" is success; host, address and reason of a failure.
    """

    domain: str
    policy: str
    result: str = ""
    host: str = ""
    address: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TlsCount:
    """So many sessions went like this one."""

    session: TlsSession
    count: int


def domains(sessions: Iterable[TlsSession]) -> list[str]:
    """In order, each once."""
    return sorted({session.domain for session in sessions})


def rows(sessions: Iterable[TlsSession], full: Collection[str]) -> list[Row]:
    """(domain, key, policy, result, host, address, reason, count), sorted; `full` domains have MOST_ROWS already."""
    counted = Counter(_folded(session) if session.domain in full else _cut(session) for session in sessions)
    made = [(s.domain, _key(s), s.policy, s.result, s.host, s.address, s.reason, count) for s, count in counted.items()]
    return sorted(made)


def _cut(session: TlsSession) -> TlsSession:
    return replace(session, reason=session.reason.replace("\0", " ").encode("utf-8", "replace").decode()[:MOST_REASON])


def _folded(session: TlsSession) -> TlsSession:
    return replace(session, policy=session.policy.partition("\n")[0], host="", address="", reason="")


def _key(session: TlsSession) -> str:
    parts = (session.policy, session.result, session.host, session.address, session.reason)
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).hexdigest()
