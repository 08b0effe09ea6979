"""Throw-away TLS certificates for fakes and tests. Never used for anything that faces the world.

Keys live in memory; OpenSSL wants files, so they touch a private temporary folder for the moment of loading.
"""

import dataclasses
import datetime
import ipaddress
import pathlib
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Fixed dates: no clock is read, and a certificate made by a test is valid whatever the machine believes.
_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate that is its own CA, and its key, both PEM."""

    certificate: bytes
    key: bytes

    def server_context(self) -> ssl.SSLContext:
        """A context for the server's side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "tls.pem"
            path.write_bytes(self.key + self.certificate)
            context.load_cert_chain(path)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context for the client's side that trusts this certificate alone."""
        return ssl.create_default_context(cadata=self.certificate.decode())


def self_signed(*names: str) -> Certificate:
    """A new certificate for host names and IP addresses; the first name is the subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


class Authority:
    """A throw-away CA that issues certificates for both ends of mTLS."""

    def __init__(self, name: str = "test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._subject, self._key.public_key(), _NOT_AFTER)
        built = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(self._key, hashes.SHA256())
        self.certificate = built.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, until: datetime.datetime) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(public)
        return builder.serial_number(x509.random_serial_number()).not_valid_before(_NOT_BEFORE).not_valid_after(until)

    def issue(self, *names: str, until: datetime.datetime = _NOT_AFTER) -> Certificate:
        """A certificate for host names and IP addresses; the first name is the subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key.public_key(), until)
        built = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False).sign(self._key, hashes.SHA256())
        return Certificate(
            certificate=built.public_bytes(serialization.Encoding.PEM),
            key=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )

    def mount(self, folder: pathlib.Path, certificate: Certificate) -> pathlib.Path:
        """Puts a certificate into `folder` as a Secret is mounted: tls.crt, tls.key, ca.crt, replaced at once by one link."""
        folder.mkdir(parents=True, exist_ok=True)
        version = pathlib.Path(tempfile.mkdtemp(prefix="..", dir=folder))
        for name, content in (("tls.crt", certificate.certificate), ("tls.key", certificate.key), ("ca.crt", self.certificate)):
            (version / name).write_bytes(content)
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
        link = folder / "..data.new"
        link.symlink_to(version.name)
        link.rename(folder / "..data")
        return folder


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
