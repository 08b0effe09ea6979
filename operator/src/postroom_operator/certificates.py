"""Certificates that nobody else issues: self-signed ones for listeners. The time is a parameter; keys never leave the returned document."""

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from postroom_core.documents import Certificate

# Browsers' limit for public certificates; nobody verifies this one, but tools complain about longer ones.
CERTIFICATE_DAYS = 397
RENEW_DAYS = 30


def names(document: Certificate) -> list[str]:
    """The DNS names of a certificate; none for what cannot be read."""
    loaded = x509.load_pem_x509_certificate(document.chain.encode())
    return list(loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName))


def lasts(document: Certificate, now: datetime.datetime) -> bool:
    """Whether a certificate does not end soon."""
    ends = x509.load_pem_x509_certificate(document.chain.encode()).not_valid_after_utc
    return ends - now > datetime.timedelta(days=RENEW_DAYS)


def issued_by_itself(document: Certificate) -> bool:
    """Whether nobody else has signed it."""
    loaded = x509.load_pem_x509_certificate(document.chain.encode())
    return loaded.issuer == loaded.subject


def self_signed(document: str, hostnames: Sequence[str], now: datetime.datetime) -> Certificate:
    """The document of that name, for these host names, with a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostnames[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname) for hostname in hostnames]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Certificate(name=document, chain=certificate.public_bytes(Encoding.PEM).decode(), private_key=private)
