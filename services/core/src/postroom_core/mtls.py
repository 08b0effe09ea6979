"""TLS material of gRPC between pods, and who may call what. No connection is made here: rpc builds servers and channels from it.

Every service has one certificate of the platform's own CA, mounted as a folder with tls.crt, tls.key and ca.crt. Its first DNS name is the
identity: SERVICE.DOMAIN, for example ingress.postroom.svc. Both ends must be of the same CA and the same domain; a caller is the SERVICE
part, and a method that CALLERS does not name for it is refused.
"""

import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from prometheus_client import Gauge

log = structlog.get_logger(__name__)
EXPIRES = Gauge("postroom_grpc_certificate_expiry_seconds", "Unix time at which the certificate for gRPC ends")
# A mounted Secret changes once in days and lags by a minute at the kubelet; looking at one link once a second costs nothing.
LOOK_SECONDS = 1.0

ANYBODY = frozenset({"ingress", "delivery", "signer", "operator", "cli", "web"})
# What people see and do: the command, the page, and the operator on behalf of a resource.
PEOPLE = frozenset({"cli", "web", "operator"})
# Closed: a method that is not named here may be called by nobody. A name that ends with / stands for a whole service.
CALLERS: Mapping[str, frozenset[str]] = {
    "/postroom.v1.Spool/": frozenset({"ingress"}),
    "/postroom.v1.Queue/": PEOPLE,
    "/postroom.v1.Queue/Show": PEOPLE | {"ingress"},
    "/postroom.v1.Analytics/": PEOPLE,
    "/postroom.v1.Suppression/Filter": frozenset({"ingress"}),
    "/postroom.v1.Suppression/Lookup": frozenset({"ingress"}),
    "/postroom.v1.Suppression/List": PEOPLE,
    "/postroom.v1.Suppression/Add": PEOPLE,
    "/postroom.v1.Suppression/Report": frozenset({"ingress", "cli", "operator"}),
    "/postroom.v1.Suppression/CheckReturnPath": frozenset({"ingress"}),
    "/postroom.v1.Suppression/Remove": PEOPLE,
    "/postroom.v1.Reputation/": PEOPLE,
    "/postroom.v1.Webhooks/": PEOPLE,
    "/postroom.v1.Signer/Sign": frozenset({"ingress", "delivery"}),
    "/postroom.v1.Signer/SignBatch": frozenset({"ingress", "delivery"}),
    "/postroom.v1.Signer/Loaded": frozenset({"operator"}),
    "/grpc.health.v1.Health/": ANYBODY,
}


class MaterialError(OSError):
    """The folder has no usable certificate; the text says why and never shows a key."""


@dataclass(frozen=True, slots=True)
class Material:
    """PEM throughout. `identity` is SERVICE.DOMAIN."""

    chain: bytes
    private_key: bytes = field(repr=False)
    ca: bytes
    identity: str
    expires_at: float

    @property
    def domain(self) -> str:
        return self.identity.partition(".")[2]


def read(folder: pathlib.Path) -> Material:
    """What the folder holds now. Raises MaterialError for what is missing or does not belong together, as in the middle of a renewal."""
    try:
        chain, key, ca = ((folder / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt"))
    except OSError as error:
        raise MaterialError(f"TLS for gRPC: {error.filename}: {error.strerror}") from error
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        x509.load_pem_x509_certificates(ca)
        private = load_pem_private_key(key, password=None)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound) as error:
        raise MaterialError(f"TLS for gRPC: {folder} does not hold a certificate with a DNS name, its key and a CA in PEM") from error
    if leaf.public_key() != private.public_key():
        raise MaterialError(f"TLS for gRPC: tls.crt and tls.key in {folder} do not belong together")
    if not names or not names[0].partition(".")[2]:
        raise MaterialError(f"TLS for gRPC: the first DNS name in {folder}/tls.crt is not SERVICE.DOMAIN")
    return Material(chain, key, ca, names[0].lower(), leaf.not_valid_after_utc.timestamp())


class Watched:
    """The material of a folder as of the last look. A folder that cannot be used any more keeps what was read last."""

    def __init__(self, folder: pathlib.Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._monotonic = monotonic
        self._seen = self._stamp()
        self._looked = monotonic()
        self._told = ""
        self._material = read(folder)
        EXPIRES.set(self._material.expires_at)

    def current(self) -> Material:
        """May be called from any thread and for every call; looks at the files at most once in LOOK_SECONDS."""
        now = self._monotonic()
        if now - self._looked < LOOK_SECONDS:
            return self._material
        self._looked = now
        stamp = self._stamp()
        if stamp == self._seen:
            return self._material
        try:
            self._material = read(self._folder)
        except MaterialError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("the certificate for gRPC was not renewed, the last one stays", reason=self._told)
            return self._material
        self._seen, self._told = stamp, ""
        EXPIRES.set(self._material.expires_at)
        log.info("the certificate for gRPC was renewed", identity=self._material.identity)
        return self._material

    def _stamp(self) -> object:
        try:
            return [
                (found.st_mtime_ns, found.st_ino, found.st_size)
                for name in ("tls.crt", "tls.key", "ca.crt")
                for found in [(self._folder / name).stat()]
            ]
        except OSError:
            return None


def caller(names: Iterable[bytes], domain: str) -> str:
    """The service that a peer's certificate names within our domain; "" for a stranger."""
    for name in names:
        service, _, rest = name.decode("ascii", "replace").lower().partition(".")
        if rest == domain:
            return service
    return ""


def may_call(service: str, method: str) -> bool:
    """Whether `service` may call the gRPC method /PACKAGE.SERVICE/METHOD."""
    allowed = CALLERS.get(method) or CALLERS.get(method[: method.rfind("/") + 1], frozenset())
    return service in allowed
