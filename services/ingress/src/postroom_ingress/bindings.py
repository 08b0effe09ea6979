"""Channel bindings of TLS connections (RFC 5929), for SCRAM-SHA-256-PLUS. Values in, values out; whoever has the connection asks it.

tls-server-end-point, a hash of our certificate, exists with every version of TLS. tls-unique exists up to TLS 1.2. Python cannot give the key
material of tls-exporter (RFC 9266), which is what clients take with TLS 1.3 when they have it; announced without it, SCRAM-SHA-256-PLUS would
fail for exactly these. So it is announced up to TLS 1.2 only; with TLS 1.3 clients that are told to bind to the end point may use it all the same.
"""

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from postroom_ingress.sasl import Binding


def end_point(chain: str) -> bytes:
    """tls-server-end-point of a PEM chain whose first certificate is the server's (RFC 5929 section 4.1); b"" where the RFC defines none."""
    certificate = x509.load_pem_x509_certificate(chain.encode())
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:  # Ed25519 and Ed448 hash inside
        return b""
    weak = isinstance(algorithm, hashes.MD5 | hashes.SHA1)
    return certificate.fingerprint(hashes.SHA256() if weak else algorithm)


def of(version: str, certificate: bytes, unique: bytes) -> Binding:
    """`certificate` is the end point, `unique` what Python calls tls-unique; for TLS 1.3 that is something else, and not used."""
    found = {"tls-server-end-point": certificate} if certificate else {}
    old = version in ("TLSv1", "TLSv1.1", "TLSv1.2")
    if old and unique:
        found["tls-unique"] = unique
    return Binding(found, announced=old and bool(found))
