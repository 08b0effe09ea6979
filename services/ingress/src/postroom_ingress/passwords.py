"""Checking passwords of PLAIN, LOGIN and HTTP against scrypt verifiers, without stopping the event loop and without doing the work twice.

scrypt costs some 50 ms and 16 MiB by design. It runs in threads, at most two at once, and a right password is remembered for some minutes as a
keyed digest that also covers the verifier, so that a changed password is forgotten at once. Never stores or logs a password.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence

from postroom_core.clock import Clock
from postroom_core.documents import ScryptVerifier, Verifier

# Long enough for a client that opens a connection per message, short enough that a leaked memory image is worth little.
REMEMBER_SECONDS = 300.0
MOST_REMEMBERED = 10_000
# Two cores' worth: more would only take memory from each other.
PARALLEL = 2
_MEMORY = 64 * 1024 * 1024
# A password is no book: longer ones are refused before they cost anything.
LONGEST = 1024


class Passwords:
    """One for the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, float] = {}
        self._room = asyncio.Semaphore(PARALLEL)
        self._nobody = ScryptVerifier(
            salt=base64.b64encode(secrets.token_bytes(16)).decode(), n=2**14, r=8, p=1, key=base64.b64encode(bytes(32)).decode()
        )

    def digest(self, *parts: str) -> bytes:
        """Identifies a user name and password within this process, and says nothing about them outside of it."""
        return hmac.digest(self._key, "\0".join(parts).encode("utf-8", "surrogatepass"), "sha256")

    def remembered(self, verifiers: Sequence[Verifier], password: str) -> bool:
        """Whether the password was right lately; costs nothing."""
        now = self._clock.monotonic()
        return any(self._known.get(self.digest(verifier.scrypt.key, password), 0.0) > now for verifier in verifiers)

    async def right(self, verifiers: Sequence[Verifier], password: str, allowed: Callable[[], bool]) -> bool:
        """Whether one of the verifiers fits; none at all (an unknown user) takes as long as a wrong password.

        `allowed` is asked when the turn comes: what waited behind too many wrong passwords is not checked any more.
        """
        if len(password) > LONGEST:
            return False
        async with self._room:
            if not allowed():
                return False
            if self.remembered(verifiers, password):  # a pool's connections that log in at once wait for the first one's check
                return True
            for verifier in [v.scrypt for v in verifiers] or [self._nobody]:
                if await asyncio.to_thread(_fits, verifier, password) and verifier is not self._nobody:
                    self._remember(self.digest(verifier.key, password))
                    return True
        return False

    def _remember(self, digest: bytes) -> None:
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[digest] = self._clock.monotonic() + REMEMBER_SECONDS


def _fits(verifier: ScryptVerifier, password: str) -> bool:
    wanted = base64.b64decode(verifier.key)
    salt = base64.b64decode(verifier.salt)
    made = hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=verifier.n, r=verifier.r, p=verifier.p, maxmem=_MEMORY, dklen=len(wanted)
    )
    return hmac.compare_digest(made, wanted)
