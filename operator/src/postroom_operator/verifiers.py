"""Verifiers of passwords: what may leave a tenant's Secret. Takes some 50 ms by design; call it in a thread."""

import base64
import hashlib
import hmac
import secrets

from postroom_core.documents import ScramVerifier, ScryptVerifier, Verifier

# RFC 7677 asks for 4096 at least; passwords we make have 190 bits, more rounds would only slow every SCRAM login.
SCRAM_ITERATIONS = 4096
SCRYPT = {"n": 2**14, "r": 8, "p": 1}  # RFC 7914's interactive cost: 16 MiB, some 50 ms


def derive(password: str) -> Verifier:
    """A verifier with new salts (RFC 5802 section 3, RFC 7914)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    scram = ScramVerifier(
        salt=_base64(salt),
        iterations=SCRAM_ITERATIONS,
        stored_key=_base64(hashlib.sha256(client_key).digest()),
        server_key=_base64(hmac.digest(salted, b"Server Key", "sha256")),
    )
    salt = secrets.token_bytes(16)
    key = hashlib.scrypt(password.encode(), salt=salt, maxmem=64 * 1024 * 1024, dklen=32, **SCRYPT)
    return Verifier(scram=scram, scrypt=ScryptVerifier(salt=_base64(salt), key=_base64(key), **SCRYPT))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
