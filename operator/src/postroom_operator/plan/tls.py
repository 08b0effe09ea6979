"""The certificate of a domain's own host names in a cluster: from a Secret, from cert-manager, else self-signed until there is one. Pure."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509

from postroom_core.documents import Certificate
from postroom_operator.plan.conditions import Condition, stamp
from postroom_operator.plan.names import CREDENTIAL, Object, Owner, bounded, make


@dataclass(frozen=True, slots=True)
class Found:
    """What a domain's host names are served with. `problem` is why it is not what was asked for."""

    document: Certificate | None = field(repr=False)
    source: str  # Secret, CertManager, SelfSigned; "" without spec.tls
    problem: str = ""


def secret_name(owner: Owner) -> str:
    """Where cert-manager puts the certificate."""
    return bounded(f"{owner.name}-tls")


def issued_from(owner: Owner, spec: Object, *, cert_manager: bool) -> str | None:
    """Name of the Secret that the certificate is taken from; None: self-signed."""
    tls = spec.get("tls", {})
    if "secretRef" in tls:
        return str(tls["secretRef"]["name"])
    return secret_name(owner) if "issuerRef" in tls and cert_manager else None


def certificate(owner: Owner, spec: Object) -> Object:
    """cert-manager's Certificate. The label on its Secret lets us see a renewal at once."""
    tls = spec["tls"]
    body = {
        "secretName": secret_name(owner),
        "secretTemplate": {"labels": {CREDENTIAL: "true"}},
        "dnsNames": sorted(tls["hostnames"]),
        "issuerRef": {"group": "cert-manager.io", "kind": tls["issuerRef"]["kind"], "name": tls["issuerRef"]["name"]},
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "usages": ["digital signature", "server auth"],
    }
    return make(("cert-manager.io/v1", "Certificate"), owner.namespace, owner.name, owner, spec=body)


def observe(found: Found, spec: Object, *, cert_manager: bool) -> Condition:
    """The condition TLSReady. A self-signed certificate that was not asked for is in force and visible as such."""
    tls = spec.get("tls")
    if tls is None:
        return Condition("TLSReady", "True", "NotRequested", "clients get the installation's own certificate")
    if "issuerRef" in tls and not cert_manager:
        return Condition("TLSReady", "True", "SelfSignedFallback", "cert-manager's Certificate is not served here; the certificate is self-signed")
    if found.problem:
        reason = "SecretUnusable" if "secretRef" in tls else "Issuing"
        return Condition("TLSReady", "False", reason, f"{found.problem}; until then the certificate is self-signed")
    return Condition("TLSReady", "True", "Issued" if found.source != "SelfSigned" else "SelfSigned")


def status(found: Found) -> Object:
    """status.tls."""
    if found.document is None:
        return {}
    ends: datetime = x509.load_pem_x509_certificate(found.document.chain.encode()).not_valid_after_utc
    return {"tls": {"source": found.source, "notAfter": stamp(ends.astimezone(UTC))}}
