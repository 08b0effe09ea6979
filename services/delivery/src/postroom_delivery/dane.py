"""DANE for SMTP (RFC 7672, RFC 6698): which TLSA records count, and whether a server's certificate chain matches one. Pure.

Usage 3 (DANE-EE) binds the server's own key or certificate; its names and dates count for nothing. Usage 2 (DANE-TA) binds a CA certificate that
the server must present: the chain is then verified up to that certificate by OpenSSL, at `now`, with one of the reference names in the leaf.
Usages 0 and 1 have no meaning for SMTP (RFC 7672 section 3.1.3). The records' authenticity is the resolver's matter.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import crypto

_TA, _EE = 2, 3
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}
# A server's chain is bounded by OpenSSL's own limit of 100 KiB; this bounds the work on it.
MOST_CERTIFICATES = 20


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One record: `selector` 0 is the certificate, 1 its public key; `matching` 0 is the octets, 1 SHA-256, 2 SHA-512."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching}"


def usable(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """The records that can authenticate an SMTP server."""
    return tuple(record for record in records if record.usage in (_TA, _EE) and record.selector in (0, 1) and _is_well_formed(record))


def _is_well_formed(record: Tlsa) -> bool:
    if record.matching in _DIGESTS:
        return len(record.data) == _DIGESTS[record.matching]().digest_size
    return record.matching == 0 and bool(record.data)


def mismatch(chain: Sequence[bytes], records: Sequence[Tlsa], names: Sequence[str], now: int) -> str:
    """Why the chain (DER, leaf first) matches no usable record; "" when one matches. `names` are those that a DANE-TA leaf may carry."""
    if not chain:
        return "the server presented no certificate"
    if any(record.usage == _EE and _matches(record, chain[0]) for record in records):
        return ""
    anchors = [der for der in chain[1:MOST_CERTIFICATES] if any(record.usage == _TA and _matches(record, der) for record in records)]
    # "2 0 0" carries the CA certificate itself, so a server need not send it.
    anchors += [record.data for record in records if (record.usage, record.selector, record.matching) == (_TA, 0, 0)]
    if not anchors:
        return "the server's certificate matches no TLSA record"
    return _untrusted(chain[:MOST_CERTIFICATES], anchors, now) or _misnamed(chain[0], names)


def _matches(record: Tlsa, der: bytes) -> bool:
    selected = der if record.selector == 0 else _public_key(der)
    if selected is None:
        return False
    return (_DIGESTS[record.matching](selected).digest() if record.matching else selected) == record.data


def _public_key(der: bytes) -> bytes | None:
    try:
        return x509.load_der_x509_certificate(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _untrusted(chain: Sequence[bytes], anchors: Sequence[bytes], now: int) -> str:
    """Why no path leads from the leaf to an anchor; OpenSSL decides, the anchor need not be self-signed (RFC 7671 section 5.2.2)."""
    try:
        store = crypto.X509Store()
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        store.set_time(datetime.fromtimestamp(now / 1000, UTC))
        for der in anchors:
            store.add_cert(_load(der))
        leaf, *others = [_load(der) for der in chain]
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return f"no valid chain to the CA that the TLSA record names: {error}"
    except (crypto.Error, ValueError):
        return "the server's chain or the TLSA record holds no valid certificate"
    return ""


def _load(der: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def _misnamed(leaf: bytes, names: Sequence[str]) -> str:
    presented = presented_names(leaf)
    if any(_fits(pattern, name.lower()) for pattern in presented for name in names):
        return ""
    return f"the certificate is for {', '.join(presented[:3]) or 'nobody'}, not for {' or '.join(names)}"


def presented_names(der: bytes) -> list[str]:
    """The DNS names of a certificate, or its common name when it has none (RFC 7672 section 3.2.3), in lower case."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        alternatives = []
    except ValueError:
        return []
    common = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return [name.lower().rstrip(".") for name in alternatives or common]


def _fits(pattern: str, name: str) -> bool:
    """RFC 6125 section 6.4.3: a wildcard is the whole left-most label, and stands for one label."""
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and "." in pattern[2:]
    return pattern == name
