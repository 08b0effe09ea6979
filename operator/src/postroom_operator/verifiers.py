"""What is kept of a password: verifiers for SCRAM-SHA-256 and for PLAIN. Pure but for the salts.

All passwords of one user name share the SCRAM salt. A SCRAM client hears one salt before it proves anything, so passwords that are valid together
during a rotation can only both be used when it fits both. The salt of scrypt is new each time: nobody hears it.
"""

import base64
import hashlib
import hmac
import secrets

from postroom_core.documents import ScramVerifier, ScryptVerifier, Verifier

# RFC 7677 asks for 4096 at least; passwords we make have 190 bits, more rounds would only slow every SCRAM login.
SCRAM_ITERATIONS = 4096
SCRYPT = {"n": 2**14, "r": 8, "p": 1}  # RFC 7914's interactive cost: 16 MiB, some 50 ms


def salt_of(pepper: bytes, username: str) -> bytes:
    """The SCRAM salt of a user name, the same for ever; `pepper` is a secret of the platform."""
    return hmac.digest(pepper, f"scram\0{username}".encode(), "sha256")[:16]


def derive(password: str, salt: bytes | None = None) -> Verifier:
    """A verifier (RFC 5802 section 3, RFC 7914) with this salt for SCRAM, or a new one. Takes some 50 ms by design: call it in a thread."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    scram = ScramVerifier(
        salt=_base64(salt),
        iterations=SCRAM_ITERATIONS,
        stored_key=_base64(hashlib.sha256(client_key).digest()),
        server_key=_base64(hmac.digest(salted, b"Server Key", "sha256")),
    )
    own = secrets.token_bytes(16)
    key = hashlib.scrypt(password.encode(), salt=own, maxmem=64 * 1024 * 1024, dklen=32, **SCRYPT)
    return Verifier(scram=scram, scrypt=ScryptVerifier(salt=_base64(own), key=_base64(key), **SCRYPT))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
