"""`spec.tls` of a MailDomain → the certificate that ingress shows to clients who ask for one of its hostnames (SNI). Pure.

With `secretRef` it is the user's own (a Secret of type kubernetes.io/tls); without one whoever runs the plan makes it, self-signed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from postroom_core.documents import Certificate
from postroom_operator.plan.findings import Lookup, Problem
from postroom_operator.resources import Resource


@dataclass(frozen=True, slots=True)
class Wanted:
    """A self-signed certificate that is to be made: its document's name and its hostnames."""

    name: str
    hostnames: tuple[str, ...]


def compile_certificate(resource: Resource, secret: Lookup, made: Mapping[str, Certificate]) -> Certificate | Wanted | Problem | None:
    """None without spec.tls. `made` are the self-signed ones that are there, by name."""
    tls = resource.spec.get("tls")
    if tls is None:
        return None
    name, hostnames = f"{resource.namespace}/{resource.name}", tuple(tls["hostnames"])
    if "secretRef" not in tls:
        there = made.get(name)
        return there if there is not None and there.hostnames == hostnames else Wanted(name, hostnames)
    path, reference = ("tls", "secretRef"), tls["secretRef"]["name"]
    found = secret((resource.namespace, reference))
    if found is None or not {"tls.crt", "tls.key"} <= found.data.keys():
        return Problem(path, f"no Secret {reference} with tls.crt and tls.key")
    chain, key = found.data["tls.crt"], found.data["tls.key"]
    fault = _fault(chain, key)
    return Problem(path, fault) if fault else Certificate(name=name, hostnames=hostnames, chain=chain, private_key=key)


def _fault(chain: str, key: str) -> str:
    try:
        certificate = x509.load_pem_x509_certificates(chain.encode())[0]
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):
        return "tls.crt is not a certificate in PEM, or tls.key not a private key without a password"
    forms = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*forms) != private.public_key().public_bytes(*forms):
        return "tls.key does not belong to tls.crt"
    return ""
