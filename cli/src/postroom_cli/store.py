"""What one machine keeps for the plan: DKIM keys, generated credentials, verifiers, the listeners' certificate. I/O; decides nothing.

Files are made with their final mode (keys 0400, secrets 0600) and put in place by a rename; no key or password is ever printed or logged here.
"""

import datetime
import hmac
import json
import os
import pathlib
import secrets
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroom_cli.layout import Layout
from postroom_core.documents import Certificate, Verifier
from postroom_operator import certificates
from postroom_operator.plan import keys
from postroom_operator.plan.compile import Observed
from postroom_operator.plan.dns import Host
from postroom_operator.plan.findings import SecretKey
from postroom_operator.plan.keys import StoredKey
from postroom_operator.resources import Secret
from postroom_operator.verifiers import derive, salt_of


def write(path: pathlib.Path, content: str, mode: int) -> None:
    """Atomically, with its mode from the first moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(content)
    temporary.rename(path)


class Store:
    """The state below one data folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._verifiers: dict[tuple[str, str], Verifier] = {}

    def observe(self, own_name: str, now: datetime.datetime) -> Observed:
        """What is there now; makes the certificate when there is none or it ends soon."""
        return Observed(
            keys=self._keys(),
            secrets=self._secrets(),
            verifiers=self._verifiers,
            certificate=self._certificate(own_name, now),
            certificates=self._certificates(now),
            host=Host(own_name),
        )

    def observe_keys(self, own_name: str = "") -> Observed:
        """Only the DKIM keys and the host's name: enough for DNS records, and makes nothing."""
        return Observed(keys=self._keys(), host=Host(own_name))

    # DKIM keys

    def _keys(self) -> dict[str, tuple[StoredKey, ...]]:
        found: dict[str, list[StoredKey]] = {}
        for path in sorted(self._layout.keys.glob("*/*.pem")):
            pem = path.read_text()
            algorithm, public = keys.describe(pem)
            active = path.with_suffix(".active").exists()
            found.setdefault(path.parent.name, []).append(StoredKey(path.parent.name, path.stem, algorithm, public, active, pem))
        return {domain: tuple(stored) for domain, stored in found.items()}

    def make_key(self, domain: str, algorithm: str, prefix: str, now: datetime.datetime) -> None:
        """A new key pair, not active yet."""
        private: Any = ed25519.Ed25519PrivateKey.generate() if algorithm == "Ed25519" else rsa.generate_private_key(65537, 2048)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        selector = keys.selector(prefix, now, keys.describe(pem)[1])
        write(self._layout.keys / domain / f"{selector}.pem", pem, 0o400)

    def activate(self, key: StoredKey) -> None:
        """From now on the key signs, for good: its record has been seen."""
        write(self._layout.keys / key.domain / f"{key.selector}.active", "", 0o600)

    # Credentials

    def _secrets(self) -> dict[SecretKey, Secret]:
        found = {}
        for path in self._layout.secrets.glob("*/*.json"):
            key = (path.parent.name, path.stem)
            found[key] = Secret(key[1], key[0], json.loads(path.read_text()))
        return found

    def make_secret(self, key: SecretKey, domain: str) -> None:
        """A basic-auth Secret with a random password."""
        data = {"username": f"{key[1]}@{domain}", "password": secrets.token_urlsafe(24)}
        write(self._layout.secrets / key[0] / f"{key[1]}.json", json.dumps(data), 0o600)

    def make_verifier(self, username: str, password: str) -> None:
        """Derives it, or takes the kept one: documents stay the same over restarts, and a thousand credentials start in no time."""
        kept = self._load_verifiers()
        pepper = self._pepper()
        digest = hmac.digest(pepper, f"{username}\0{password}".encode(), "sha256").hex()
        if digest in kept:
            self._verifiers[(username, password)] = Verifier.model_validate(kept[digest])
            return
        verifier = self._verifiers[(username, password)] = derive(password, salt_of(pepper, username))
        kept[digest] = verifier.model_dump()
        write(self._layout.secrets / "verifiers.json", json.dumps(kept), 0o600)

    def _load_verifiers(self) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = json.loads((self._layout.secrets / "verifiers.json").read_text())
        except FileNotFoundError:
            return {}
        return loaded

    def _pepper(self) -> bytes:
        path = self._layout.secrets / "verifiers.key"
        if not path.exists():
            write(path, secrets.token_hex(32), 0o600)
        return bytes.fromhex(path.read_text())

    # Certificate

    def _certificate(self, own_name: str, now: datetime.datetime) -> Certificate:
        path = self._layout.tls / "default.json"
        if path.exists():
            document = Certificate.model_validate_json(path.read_text())
            if certificates.names(document)[0] == own_name and certificates.lasts(document, now):
                return document
        names = [own_name] if own_name == "localhost" else [own_name, "localhost"]
        document = certificates.self_signed("default", names, now)
        write(path, document.model_dump_json(), 0o600)
        return document

    def _certificates(self, now: datetime.datetime) -> dict[str, Certificate]:
        found = [Certificate.model_validate_json(path.read_text()) for path in self._layout.tls.glob("*/*.json")]
        return {document.name: document for document in found if certificates.lasts(document, now)}

    def make_certificate(self, name: str, hostnames: tuple[str, ...], now: datetime.datetime) -> None:
        """A self-signed certificate of a MailDomain, `name` being namespace/name."""
        document = certificates.self_signed(name, hostnames, now).model_copy(update={"hostnames": hostnames})
        write(self._layout.tls / f"{name}.json", document.model_dump_json(), 0o600)
