"""Who may see and do: tokens, roles, sessions, and the proof that a form came from our own page (CSRF). Pure; `now` is in milliseconds.

A token is exchanged for a session cookie. The cookie is the role, its end and a random name, signed with a key of this process: a restart ends all
sessions. The proof in a form is derived from the session, so another site cannot make it, and SameSite keeps the cookie from being sent at all.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

# A working day: long enough to keep a wall screen open, short enough that a forgotten browser is no key for ever.
SESSION_MS = 12 * 3600 * 1000


class Role(Enum):
    """An operator may act on the queue and on destinations; a viewer only looks."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Session:
    """Who asks. `name` is random; `until` in milliseconds."""

    role: Role
    until: int
    name: str

    @property
    def may_act(self) -> bool:
        return self.role is Role.OPERATOR


class Gate:
    """`tokens` by role."""

    def __init__(self, tokens: Mapping[Role, str], key: bytes | None = None) -> None:
        self._tokens = {role: hashlib.sha256(token.encode()).digest() for role, token in tokens.items()}
        self._key = key or secrets.token_bytes(32)

    def admit(self, token: str, now: int) -> Session | None:
        """A new session for a token; every token is compared, in constant time."""
        given = hashlib.sha256(token.strip().encode()).digest()
        roles = [role for role, known in self._tokens.items() if hmac.compare_digest(given, known)]
        return Session(roles[0], now + SESSION_MS, secrets.token_urlsafe(16)) if roles else None

    def cookie(self, session: Session) -> str:
        """What the browser keeps."""
        text = f"{session.role.value}.{session.until}.{session.name}"
        return f"{text}.{self._sign('session', text)}"

    def session(self, cookie: str, now: int) -> Session | None:
        """None for what we did not make, and for what has ended."""
        text, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        role, until, name = text.split(".")
        return Session(Role(role), int(until), name) if int(until) > now else None

    def proof(self, session: Session) -> str:
        """Stands in every form of this session."""
        return self._sign("form", session.name)

    def proves(self, session: Session, proof: str) -> bool:
        return hmac.compare_digest(proof.encode(), self.proof(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"{purpose}:{text}".encode(), "sha256").hex()
