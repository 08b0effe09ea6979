"""SASL mechanisms without sockets: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677). Pure.

A mechanism is fed the client's decoded responses and answers with a challenge, a password to be checked, a proof that was right, or a failure. An
unknown user takes the same steps as a known one, with a verifier that nobody can match, so that neither texts nor times tell them apart.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from postroom_core.documents import ScramVerifier, Verifier

MECHANISMS = ("PLAIN", "LOGIN", "SCRAM-SHA-256")
Lookup = Callable[[str], Sequence[Verifier]]


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
class Proven:
    """The client has proven that it knows the password."""

    username: str


@dataclass(frozen=True, slots=True)
class Failed:
    """`syntax` tells a malformed exchange (501) from wrong credentials (535)."""

    syntax: bool = False


Step = Challenge | CheckPassword | Proven | Failed


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


class Scram:
    """The server's side of SCRAM-SHA-256 without channel binding. `secret` makes the salts of unknown users stable."""

    def __init__(self, lookup: Lookup, secret: bytes, nonce: str | None = None) -> None:
        self._lookup = lookup
        self._secret = secret
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
        binding, authorize, bare = (*text.split(",", 2), "", "")[:3]
        attributes = _attributes(bare)
        if binding not in ("n", "y") or not attributes.get("n") or not attributes.get("r") or "m" in attributes:
            return Failed(syntax=True)
        self._username = attributes["n"].replace("=2C", ",").replace("=3D", "=")
        if authorize not in ("", f"a={attributes['n']}"):
            return Failed()
        self._header = f"{binding},{authorize},"
        found = [verifier.scram for verifier in self._lookup(self._username)]
        self._known = bool(found)
        first = found[0] if found else self._nobody()
        self._verifiers = [verifier for verifier in found if (verifier.salt, verifier.iterations) == (first.salt, first.iterations)] or [first]
        self._combined = attributes["r"] + self._nonce
        server_first = f"r={self._combined},s={first.salt},i={first.iterations}"
        self._first = f"{bare},{server_first}"
        return Challenge(server_first.encode())

    def _nobody(self) -> ScramVerifier:
        digest = hmac.digest(self._secret, self._username.encode(), "sha256")
        filler = base64.b64encode(digest).decode()
        return ScramVerifier(salt=base64.b64encode(digest[:16]).decode(), iterations=4096, stored_key=filler, server_key=filler)

    def _client_final(self, text: str) -> Step:
        attributes = _attributes(text)
        proof = decode(attributes.get("p", "").encode()) or b""
        if decode(attributes.get("c", "").encode()) != self._header.encode() or attributes.get("r") != self._combined:
            return Failed(syntax=True)
        message = f"{self._first},{text.rpartition(',p=')[0]}".encode()
        for verifier in self._verifiers:
            if _proof_fits(verifier, message, proof) and self._known:
                self._proven = True
                server = hmac.digest(base64.b64decode(verifier.server_key), message, "sha256")
                return Challenge(b"v=" + base64.b64encode(server))
        return Failed()


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
