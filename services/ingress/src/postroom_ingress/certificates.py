"""TLS client certificates as credentials (SASL EXTERNAL): which names a certificate has, and whether a credential's own authority issued it. Pure.

The handshake has verified the chain against the authorities of all credentials together, with dates and purpose. What is left is whose authority it
was: one tenant's authority must not make certificates that count as another tenant's credential.
"""

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from postroom_core.documents import ClientCertificate


def load(der: bytes) -> x509.Certificate | None:
    """None for what cannot be read."""
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        return None


def names(certificate: x509.Certificate) -> frozenset[str]:
    """DNS names, URIs and mail addresses of the subject alternative name; of a certificate without one the common names of the subject."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset(str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name)
    return frozenset(name for kind in kinds for name in alternative.get_values_for_type(kind))


def fits(rule: ClientCertificate, certificate: x509.Certificate) -> bool:
    """Whether the certificate has one of the rule's names and was issued directly by one of its authorities."""
    if names(certificate).isdisjoint(rule.names):
        return False
    return any(_issued(certificate, authority) for authority in x509.load_pem_x509_certificates(rule.authorities.encode()))


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def authorities(rules: Iterable[ClientCertificate]) -> str:
    """All of them together, PEM."""
    return "\n".join(sorted({rule.authorities.strip() for rule in rules}))
