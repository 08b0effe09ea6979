"""Private keys: parsed once per directory version, kept by domain. The only place that touches key material; nothing here prints it.

RSA goes through OpenSSL (0.2 ms for 2048 bit); Ed25519 signs the SHA-256 of the data (RFC 8463 section 3).
One bad key takes down its own domain only.
"""

import hashlib
from dataclasses import dataclass, field

import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from postroom_core.documents import KeySet, SigningKey
from postroom_core.errors import Permanent
from postroom_core.snapshot import Snapshot

log = structlog.get_logger(__name__)
# RFC 8301 section 3.2: signers must not use less.
LEAST_RSA_BITS = 1024


@dataclass(frozen=True, slots=True)
class RsaKey:
    """rsa-sha256 (RFC 8301)."""

    selector: str
    private: RSAPrivateKey = field(repr=False)
    tag: str = "rsa-sha256"

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data, PKCS1v15(), hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Ed25519Key:
    """ed25519-sha256 (RFC 8463)."""

    selector: str
    private: Ed25519PrivateKey = field(repr=False)
    tag: str = "ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(hashlib.sha256(data).digest())


@dataclass(frozen=True, slots=True)
class DomainKeys:
    """The active keys of one domain: Ed25519 first, RSA last.

    The signature of the last key is put on top: verifiers that look at the first signature only, and know RSA only, then find theirs.
    """

    tenant: str
    keys: tuple[RsaKey | Ed25519Key, ...]
    standby: tuple[str, ...] = ()  # selectors of keys that are held and shall sign later


def load(document: SigningKey) -> RsaKey | Ed25519Key:
    """Parses one key. Raises Permanent, without a trace of the key, for what is no usable private key."""
    try:
        private = load_pem_private_key(document.private_key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise Permanent(f"selector {document.selector}: not a private key in PEM without a password") from error
    if isinstance(private, RSAPrivateKey) and document.algorithm == "RSA2048":
        if private.key_size < LEAST_RSA_BITS:
            raise Permanent(f"selector {document.selector}: RSA key of {private.key_size} bits, {LEAST_RSA_BITS} is the least")
        return RsaKey(document.selector, private)
    if isinstance(private, Ed25519PrivateKey) and document.algorithm == "Ed25519":
        return Ed25519Key(document.selector, private)
    raise Permanent(f"selector {document.selector}: the key is not {document.algorithm}")


class Keyring:
    """Keys by domain; subscribe `replace` to the directory. Unchanged documents keep their parsed keys."""

    def __init__(self) -> None:
        self._documents: dict[str, KeySet] = {}
        self._keys: dict[str, DomainKeys] = {}

    def __repr__(self) -> str:
        return f"Keyring(domains={len(self._keys)})"

    def replace(self, snapshot: Snapshot) -> None:
        documents = snapshot.of(KeySet)
        self._keys = {name: self._keys[name] if document == self._documents.get(name) else _parse(document) for name, document in documents.items()}
        self._documents = documents

    def get(self, domain: str) -> DomainKeys | None:
        """None when the domain has no document or no key that signs."""
        found = self._keys.get(domain)
        return found if found is not None and found.keys else None

    def held(self, domain: str) -> tuple[str, ...]:
        """Selectors of every usable key, also of those that sign later."""
        found = self._keys.get(domain)
        return (*(key.selector for key in found.keys), *found.standby) if found is not None else ()


def _parse(document: KeySet) -> DomainKeys:
    keys = []
    for key in document.keys:
        try:
            keys.append(load(key))
        except Permanent as error:
            log.error("a DKIM key cannot be used", domain=document.name, reason=str(error))
            return DomainKeys(document.tenant, ())  # half of the signatures would hide the fault
    standby = tuple(key.selector for key in document.keys if not key.signs)
    keys = [key for key in keys if key.selector not in standby]
    keys.sort(key=lambda key: isinstance(key, RsaKey))
    return DomainKeys(document.tenant, tuple(keys), standby)
