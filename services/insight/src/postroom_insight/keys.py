"""DKIM key records (RFC 6376 section 3.6.1, RFC 8463, RFC 8301): is what is published what we sign with? Pure."""

import base64
import binascii
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postroom_insight import tags


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key that we hold: `public` is the value of p=, `record` what to publish. `active` keys sign now."""

    selector: str
    algorithm: str
    public: str
    record: str
    active: bool = True


def fault(values: tuple[str, ...], own: OwnKey) -> str:
    """What is wrong with the TXT records at the selector; "" when they say exactly our key."""
    records = [value for value in values if "p=" in value.replace(" ", "")]
    if not records:
        return "no DKIM record" + (f" among {len(values)} TXT records" if values else "")
    if len(records) > 1:
        return f"{len(records)} DKIM records; verifiers may take any of them"
    found = tags.parse(records[0])
    if found is None:
        return "a record that cannot be read"
    for wrong in (_revoked(found), _usage(found, own), _key(found, own)):
        if wrong:
            return wrong
    return ""


def _revoked(found: dict[str, str]) -> str:
    return "the key is revoked (p= is empty)" if not found.get("p", "") else ""


def _usage(found: dict[str, str], own: OwnKey) -> str:
    wanted = "ed25519" if own.algorithm == "Ed25519" else "rsa"
    if found.get("v", "DKIM1") != "DKIM1":
        return f"v={found['v']} instead of DKIM1"
    if found.get("k", "rsa").lower() != wanted:
        return f"k={found.get('k', 'rsa')} for a key of kind {wanted}"
    if "sha256" not in found.get("h", "sha256").lower().split(":"):
        return f"h={found['h']} does not allow sha256"
    if not {"*", "email"} & set(found.get("s", "*").split(":")):
        return f"s={found['s']} does not allow mail"
    return "" if "y" not in found.get("t", "").split(":") else "t=y says that the domain only tests DKIM: verifiers may ignore it"


def _key(found: dict[str, str], own: OwnKey) -> str:
    published = "".join(found["p"].split())
    if published == own.public:
        return ""
    if own.public.startswith(published):
        return "the key is cut short: the value has to be split into strings of 255 octets, all of them published"
    return f"another key than ours{_described(published)}"


def _described(published: str) -> str:
    try:
        key = load_der_public_key(base64.b64decode(published, validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        return ""
    return f" (RSA of {key.key_size} bits)" if isinstance(key, RSAPublicKey) else ""
