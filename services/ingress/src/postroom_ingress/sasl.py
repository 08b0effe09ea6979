"""SASL mechanisms without sockets. Pure: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 and -PLUS (RFC 5802, 7677), EXTERNAL (RFC 4422), OAUTHBEARER
(RFC 7628) and XOAUTH2, its older relative that many clients have.

A mechanism is fed the client's decoded responses and answers with a challenge, something to be checked, a proof that was right or wrong, or a
failure. An unknown user takes the same steps as a known one, with a verifier that nobody can match, so that neither texts nor times tell them apart.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from postroom_core.documents import ScramVerifier, Verifier

PLUS = "SCRAM-SHA-256-PLUS"
PASSWORDS = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
TOKENS = ("OAUTHBEARER", "XOAUTH2")
# RFC 7628 section 3.2.2; the client answers it with one octet, and then hears 535.
_INVALID_TOKEN = b'{"status":"invalid_token"}'
Lookup = Callable[[str], Sequence[Verifier]]


@dataclass(frozen=True, slots=True)
class Binding:
    """Channel binding data of a TLS connection by type (RFC 5929), and whether EHLO announces SCRAM-SHA-256-PLUS for it."""

    data: Mapping[str, bytes] = field(default_factory=dict)
    announced: bool = False


def mechanisms(binding: Binding, *, certificate: bool, tokens: bool) -> tuple[str, ...]:
    """What EHLO announces over TLS: EXTERNAL only to a client that has shown a verified `certificate`, `tokens` only where they can be checked."""
    return (*((PLUS,) if binding.announced else ()), *PASSWORDS, *(("EXTERNAL",) if certificate else ()), *(TOKENS if tokens else ()))


@dataclass(frozen=True, slots=True)
class Challenge:
    """To be sent as 334."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """The client claims this password; whoever asked checks it against the verifiers."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class CheckToken:
    """The client shows this token, and may name the credential that it means."""

    username: str
    token: str


@dataclass(frozen=True, slots=True)
class CheckCertificate:
    """The client relies on its TLS certificate, and may name the credential that it means."""

    username: str


@dataclass(frozen=True, slots=True)
class Proven:
    """The client has proven that it knows the password."""

    username: str


@dataclass(frozen=True, slots=True)
class Disproven:
    """The client has tried to prove that it knows the password, and failed."""

    username: str


@dataclass(frozen=True, slots=True)
class Failed:
    """`syntax` tells a malformed exchange (501) from wrong credentials (535)."""

    syntax: bool = False


Check = CheckPassword | CheckToken | CheckCertificate | Proven | Disproven
Step = Challenge | Check | Failed


def decode(text: bytes) -> bytes | None:
    """Base64 of a SASL line, `=` being the empty response (RFC 4954 section 4); None when it is none."""
    if text == b"=":
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


class Plain:
    """authzid NUL authcid NUL password, in one response."""

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        parts = response.split(b"\0")
        try:
            authorize, username, password = (part.decode("utf-8") for part in parts)
        except ValueError:  # not three parts, or not UTF-8
            return Failed(syntax=True)
        if authorize not in ("", username):
            return Failed()
        return CheckPassword(username, password)


class Login:
    """User name and password asked one after the other; no RFC, but in every client."""

    def __init__(self) -> None:
        self._username: bytes | None = None

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"Username:") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        if self._username is None:
            self._username = response
            return Challenge(b"Password:")
        try:
            return CheckPassword(self._username.decode("utf-8"), response.decode("utf-8"))
        except UnicodeDecodeError:
            return Failed(syntax=True)


class External:
    """An empty response, or the name of the credential that is meant."""

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        try:
            return CheckCertificate(response.decode("utf-8"))
        except UnicodeDecodeError:
            return Failed(syntax=True)


class Bearer:
    """OAUTHBEARER and XOAUTH2: a token in one response. `rejected` is the challenge that says so before the 535."""

    rejected = Challenge(_INVALID_TOKEN)

    def __init__(self, mechanism: str) -> None:
        self._old = mechanism == "XOAUTH2"

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        try:
            head, *pairs = response.decode("utf-8").split("\x01")
        except UnicodeDecodeError:
            return Failed(syntax=True)
        values = dict(pair.partition("=")[::2] for pair in pairs if pair)
        scheme, _, token = values.get("auth", "").partition(" ")
        username = self._username(head)
        if username is None or scheme.lower() != "bearer" or not token or pairs[-2:] != ["", ""]:
            return Failed(syntax=True)
        return CheckToken(username, token)

    def _username(self, head: str) -> str | None:
        """Of `user=NAME`, or of the GS2 header `n,a=NAME,` in which the name may be missing."""
        if self._old:
            return head.removeprefix("user=") if head.startswith("user=") else None
        flag, authorize, rest = (*head.split(","), "", "", "-")[:3]
        if flag not in ("n", "y") or rest or not (authorize == "" or authorize.startswith("a=")):
            return None
        return _name(authorize.removeprefix("a="))


class Scram:
    """The server's side of SCRAM-SHA-256, with channel binding when `plus`. `secret` makes the salts of unknown users stable.

    The client learns one salt before it proves anything. So the passwords that are valid together during a rotation must share theirs
    (postroom_operator.verifiers); of those that do not, only the ones with the salt of the first can be used.
    """

    def __init__(self, lookup: Lookup, secret: bytes, binding: Binding, *, plus: bool, nonce: str | None = None) -> None:
        self._lookup = lookup
        self._secret = secret
        self._binding = binding
        self._plus = plus
        self._bound = b""
        self._nonce = nonce or secrets.token_urlsafe(18)
        self._username = ""
        self._verifiers: list[ScramVerifier] = []
        self._first = ""
        self._known = False
        self._proven = False

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        if self._proven:
            return Proven(self._username) if not response else Failed(syntax=True)
        try:
            text = response.decode("utf-8")
        except UnicodeDecodeError:
            return Failed(syntax=True)
        return self._client_final(text) if self._first else self._client_first(text)

    def _client_first(self, text: str) -> Step:
        flag, authorize, bare = (*text.split(",", 2), "", "")[:3]
        attributes = _attributes(bare)
        if flag[:1] not in ("n", "y", "p") or not attributes.get("n") or not attributes.get("r") or "m" in attributes:
            return Failed(syntax=True)
        self._username = _name(attributes["n"])
        if authorize not in ("", f"a={attributes['n']}") or not self._bind(flag):
            return Failed()
        self._header = f"{flag},{authorize},".encode()
        found = [verifier.scram for verifier in self._lookup(self._username)]
        self._known = bool(found)
        first = found[0] if found else self._nobody()
        self._verifiers = [verifier for verifier in found if (verifier.salt, verifier.iterations) == (first.salt, first.iterations)] or [first]
        self._combined = attributes["r"] + self._nonce
        server_first = f"r={self._combined},s={first.salt},i={first.iterations}"
        self._first = f"{bare},{server_first}"
        return Challenge(server_first.encode())

    def _bind(self, flag: str) -> bool:
        """RFC 5802 section 6. "y" says that we did not announce what the client could do: if we did, somebody took it out on the way."""
        if flag.startswith("p="):
            self._bound = self._binding.data.get(flag[2:], b"")
            return self._plus and self._bound != b""
        return not self._plus and (flag == "n" or (flag == "y" and not self._binding.announced))

    def _nobody(self) -> ScramVerifier:
        digest = hmac.digest(self._secret, self._username.encode(), "sha256")
        filler = base64.b64encode(digest).decode()
        return ScramVerifier(salt=base64.b64encode(digest[:16]).decode(), iterations=4096, stored_key=filler, server_key=filler)

    def _client_final(self, text: str) -> Step:
        attributes = _attributes(text)
        proof = decode(attributes.get("p", "").encode()) or b""
        if attributes.get("r") != self._combined or "c" not in attributes:
            return Failed(syntax=True)
        bound = decode(attributes["c"].encode()) == self._header + self._bound
        message = f"{self._first},{text.rpartition(',p=')[0]}".encode()
        for verifier in self._verifiers:
            if _proof_fits(verifier, message, proof) and self._known and bound:
                self._proven = True
                server = hmac.digest(base64.b64decode(verifier.server_key), message, "sha256")
                return Challenge(b"v=" + base64.b64encode(server))
        return Disproven(self._username)


Mechanism = Plain | Login | External | Bearer | Scram


def _name(text: str) -> str:
    """A saslname, decoded (RFC 5802 section 5.1)."""
    return text.replace("=2C", ",").replace("=3D", "=")


def _attributes(text: str) -> dict[str, str]:
    return {part[:1]: part[2:] for part in text.split(",") if part[1:2] == "="}


def _proof_fits(verifier: ScramVerifier, message: bytes, proof: bytes) -> bool:
    """RFC 5802 section 3: H(ClientProof XOR ClientSignature) is the stored key."""
    stored = base64.b64decode(verifier.stored_key)
    signature = hmac.digest(stored, message, "sha256")
    if len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored)
