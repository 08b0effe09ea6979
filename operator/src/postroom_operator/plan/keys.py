"""DKIM keys as the plan sees them: names, states, public records. Pure.

One selector is one key pair, never used again; its name is derived from the key, so a crash between two steps cannot give one key two names. A
generated key signs only when the world sees its record (P4); an imported one was published elsewhere and signs at once.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key that exists. `public` is the value of p=; `active` keys sign."""

    domain: str
    selector: str
    algorithm: str
    public: str
    active: bool
    private: str = field(repr=False)

    @property
    def record(self) -> str:
        """The TXT record (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
        return f"v=DKIM1; k={'ed25519' if self.algorithm == 'Ed25519' else 'rsa'}; p={self.public}"


def describe(pem: str) -> tuple[str, str]:
    """(algorithm, value of p=) of a private key. Raises ValueError with a sentence that shows nothing of the key."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("not a private key in PEM without a password") from error
    if isinstance(key, RSAPrivateKey):
        if key.key_size < 1024:
            raise ValueError(f"an RSA key of {key.key_size} bits; 1024 is the least (RFC 8301), 2048 is right")
        return "RSA2048", base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    if isinstance(key, Ed25519PrivateKey):
        return "Ed25519", base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    raise ValueError("neither an RSA nor an Ed25519 key")


def selector(prefix: str, made: datetime, public: str) -> str:
    """<prefix><yyyymm>-<8 hex of the public key's hash>."""
    return f"{prefix}{made:%Y%m}-{hashlib.sha256(base64.b64decode(public)).hexdigest()[:8]}"
