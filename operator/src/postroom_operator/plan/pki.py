"""The platform's own CA and the certificates of its services, for mTLS between pods. Pure: (Secrets as observed, now) → Secrets to write.

The CA's key is kept in the key namespace, apart from what services may read. Every service has one Secret with tls.crt, tls.key and ca.crt, which
its pods mount; the DNS name SERVICE.NAMESPACE.svc is its identity (see postroom_core.mtls). A certificate is made anew at two thirds of
its life, or when it is not what it should be. Nobody has to restart: both ends look at the mounted files.
"""

import base64
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVICES = ("operator", "ingress", "signer", "delivery", "cli", "web")
# Longer than any outage of the operator that nobody repairs, short enough that a stolen key is soon worth nothing.
LEAF_DAYS = 30
RENEW_AFTER = 2 / 3
# The CA signs only these; replacing it is a deletion of its Secret, see docs/kubernetes/failures.md.
CA_DAYS = 3650
# Clocks of nodes differ.
BACKDATE = datetime.timedelta(minutes=5)
_USAGE = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign")

Object = dict[str, Any]  # a Kubernetes object as JSON


@dataclass(frozen=True, slots=True)
class Place:
    """Where the Secrets are. `ca` is the name of the CA's Secret."""

    release: str
    platform: str
    keys: str
    ca: str

    def secret(self, service: str) -> str:
        """Name of a service's Secret in the platform namespace; the chart mounts it."""
        return f"{self.release}-{service}-tls"

    def identity(self, service: str) -> str:
        return f"{service}.{self.platform}.svc"


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def due(ca: Object | None, leaves: Mapping[str, Object], place: Place, now: datetime.datetime) -> list[Object]:
    """The Secrets to create or replace: the CA when there is none that can be used, and every service's that is missing, old or wrong."""
    found = _signed(ca)
    wanted: list[Object] = []
    if found is None:
        found = _make_ca(place, now)
        wanted.append(_secret(place.ca, place.keys, found, found.certificate, ca))
    for service in SERVICES:
        held = leaves.get(service)
        if not _good(held, found.certificate, place.identity(service), now):
            leaf = _make_leaf(found, place.identity(service), now)
            wanted.append(_secret(place.secret(service), place.platform, leaf, found.certificate, held))
    return wanted


def _good(secret: Object | None, ca: x509.Certificate, identity: str, now: datetime.datetime) -> bool:
    held = _signed(secret)
    if held is None or secret is None or _decoded(secret, "ca.crt") != ca.public_bytes(Encoding.PEM):
        return False
    certificate = held.certificate
    try:
        certificate.verify_directly_issued_by(ca)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return names[:1] == [identity] and now < certificate.not_valid_before_utc + life * RENEW_AFTER


def _signed(secret: Object | None) -> Signed | None:
    """None for what is no certificate with its key."""
    if secret is None:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(_decoded(secret, "tls.crt"))
        key = load_pem_private_key(_decoded(secret, "tls.key"), password=None)
    except (ValueError, TypeError):
        return None
    return Signed(certificate, key) if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key() else None


def _decoded(secret: Object, name: str) -> bytes:
    return base64.b64decode((secret.get("data") or {}).get(name, ""))


def _make_ca(place: Place, now: datetime.datetime) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Postroom {place.release} in {place.platform}"[:64])])
    builder = _builder(subject, subject, key, now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Signed(builder.sign(key, hashes.SHA256()), key)


def _make_leaf(ca: Signed, identity: str, now: datetime.datetime) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity[:64])])
    builder = _builder(subject, ca.certificate.subject, key, now, LEAF_DAYS)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage("digital_signature"), critical=True)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return Signed(builder.add_extension(issuer, critical=False).sign(ca.key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - BACKDATE)
    return builder.not_valid_after(now + datetime.timedelta(days=days))


def _usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in granted for name in _USAGE}, encipher_only=False, decipher_only=False)


def _secret(name: str, namespace: str, signed: Signed, ca: x509.Certificate, old: Object | None) -> Object:
    """With the resourceVersion of what it replaces, so that a second writer is noticed."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "postroom-operator"}}
    if old is not None:
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
    key = signed.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    data = {"tls.crt": signed.certificate.public_bytes(Encoding.PEM), "tls.key": key, "ca.crt": ca.public_bytes(Encoding.PEM)}
    encoded = {field: base64.b64encode(value).decode() for field, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": encoded}
