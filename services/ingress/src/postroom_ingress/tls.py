"""TLS of the listeners: one context for each certificate, chosen by the name that the client asks for (SNI, RFC 6066 section 3).

A changed certificate is in force for the next handshake; sessions that are open keep theirs. A certificate that cannot be loaded is logged, and the
last one of its name stays. What OpenSSL would do and Python's ssl does not let us: shared ticket keys, OCSP stapling; see docs/tls.md.
"""

import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterable

import structlog

from postroom_core.documents import Certificate
from postroom_core.errors import Permanent
from postroom_ingress import bindings

log = structlog.get_logger(__name__)
# Forward secrecy and AEAD alone (RFC 9325 section 4.2); TLS 1.3 has nothing else. Clients of the last ten years have these.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
DEFAULT = "default"


class Tls:
    """The contexts in force. The certificate named `default` answers clients that ask for no name or for one that nobody has."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[Certificate, ssl.SSLContext]] = {}
        self._by_hostname: dict[str, ssl.SSLContext] = {}
        self._default: ssl.SSLContext | None = None
        self._authorities = ""

    def __repr__(self) -> str:
        return f"Tls(certificates={len(self._loaded)}, hostnames={len(self._by_hostname)})"

    def replace(self, certificates: Iterable[Certificate]) -> None:
        """From now on these. Unchanged ones keep their context, and with it the tickets of their clients."""
        loaded = {}
        for certificate in sorted(certificates, key=lambda c: (c.name != DEFAULT, c.name)):
            before = self._loaded.get(certificate.name)
            try:
                loaded[certificate.name] = before if before and before[0] == certificate else (certificate, self._context(certificate))
            except Permanent as error:
                log.error("certificate not loaded", certificate=certificate.name, reason=str(error))
                if before:
                    loaded[certificate.name] = before
        self._loaded = loaded
        self._by_hostname = {name.lower(): context for certificate, context in loaded.values() for name in certificate.hostnames}
        self._default = next((context for _, context in loaded.values()), None)
        self.trust(self._authorities)

    def trust(self, authorities: str) -> None:
        """From now on clients are asked for a certificate of one of these (PEM), and may do without; "" asks nobody.

        OpenSSL forgets no authority before a restart; that one still counts for a credential is checked at AUTH.
        """
        self._authorities = authorities
        for _, context in self._loaded.values():
            try:
                if authorities:
                    context.load_verify_locations(cadata=authorities)
            except ssl.SSLError as error:
                log.error("authorities of client certificates not loaded", reason=str(error.reason))
            else:
                context.verify_mode = ssl.CERT_OPTIONAL if authorities else ssl.CERT_NONE

    def end_point(self, context: ssl.SSLContext) -> bytes:
        """What SCRAM-SHA-256-PLUS binds to on connections of this context."""
        return next((bindings.end_point(certificate.chain) for certificate, own in self._loaded.values() if own is context), b"")

    def secret(self) -> bytes:
        """Equal on all replicas and hard to guess: what salts of unknown users are made of. It changes with the default certificate."""
        first = next((certificate.private_key for certificate, _ in self._loaded.values()), "")
        return hashlib.sha256(first.encode()).digest()

    def current(self) -> ssl.SSLContext | None:
        """For a new handshake; None without any certificate."""
        return self._default

    def _context(self, certificate: Certificate) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate authority of client certificates needs no root
        context.set_ciphers(CIPHERS)
        context.sni_callback = self._choose
        _load(context, certificate)
        return context

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        # The default too: a listener that was opened long ago still begins with the context of that time.
        chosen = (self._named(name.lower().rstrip(".")) if name else None) or self._default
        if chosen is not None:
            connection.context = chosen

    def _named(self, name: str) -> ssl.SSLContext | None:
        return self._by_hostname.get(name) or self._by_hostname.get(f"*.{name.partition('.')[2]}")


def _load(context: ssl.SSLContext, document: Certificate) -> None:
    """OpenSSL reads files only: an anonymous one in memory where the system has it, else a temporary one that nobody else can read."""
    pem = (document.chain + "\n" + document.private_key).encode()
    try:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        else:
            with tempfile.NamedTemporaryFile() as file:
                file.write(pem)
                file.flush()
                context.load_cert_chain(file.name)
    except (ssl.SSLError, OSError) as error:
        raise Permanent(f"not a certificate with its private key in PEM ({type(error).__name__})") from error
