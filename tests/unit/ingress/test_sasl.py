"""SASL without sockets: the vector of RFC 7677, and that unknown users take the same steps as known ones."""

import base64
import hashlib
import hmac

import pytest

from postroom_core.documents import ScramVerifier, ScryptVerifier, Verifier
from postroom_ingress.sasl import (
    Bearer,
    Binding,
    Challenge,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    Disproven,
    External,
    Failed,
    Login,
    Plain,
    Proven,
    Scram,
    Step,
    decode,
    mechanisms,
)
from postroom_operator.verifiers import derive

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SALTED = hashlib.pbkdf2_hmac("sha256", b"pencil", SALT, 4096)
CLIENT_KEY = hmac.digest(SALTED, b"Client Key", "sha256")
VERIFIER = Verifier(
    scram=ScramVerifier(
        salt=base64.b64encode(SALT).decode(),
        iterations=4096,
        stored_key=base64.b64encode(hashlib.sha256(CLIENT_KEY).digest()).decode(),
        server_key=base64.b64encode(hmac.digest(SALTED, b"Server Key", "sha256")).decode(),
    ),
    scrypt=ScryptVerifier(salt="", n=2, r=1, p=1, key=""),
)
CLIENT, SERVER = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FINAL = f"c=biws,r={CLIENT}{SERVER},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="


def scram() -> Scram:
    return Scram(lambda name: [VERIFIER] if name == "user" else [], b"secret", Binding(), plus=False, nonce=SERVER)


def test_the_vector_of_rfc_7677_passes() -> None:
    mechanism = scram()
    assert mechanism.start(f"n,,n=user,r={CLIENT}".encode()) == Challenge(f"r={CLIENT}{SERVER},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    assert mechanism.respond(FINAL.encode()) == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert mechanism.respond(b"") == Proven("user")


def test_a_wrong_proof_fails() -> None:
    mechanism = scram()
    mechanism.start(f"n,,n=user,r={CLIENT}".encode())
    assert mechanism.respond(FINAL.replace("p=dHzb", "p=eHzb").encode()) == Disproven("user")


def test_an_unknown_user_gets_a_stable_salt_and_fails_only_at_the_end() -> None:
    first = [scram().start(f"n,,n=nobody,r={CLIENT}".encode()) for _ in range(2)]
    assert isinstance(first[0], Challenge)
    assert first[0] == first[1]
    mechanism = scram()
    mechanism.start(f"n,,n=nobody,r={CLIENT}".encode())
    assert mechanism.respond(FINAL.encode()) == Disproven("nobody")


@pytest.mark.parametrize("message", ["", "n,,", "p=tls-unique,,n=user,r=x", "n,,m=x,n=user,r=x", "n,,n=user", "n,a=other,n=user,r=x", "\udcff"])
def test_a_malformed_first_message_fails(message: str) -> None:
    assert isinstance(scram().start(message.encode("utf-8", "surrogateescape")), Failed)


def test_a_nonce_that_is_not_ours_fails() -> None:
    mechanism = scram()
    mechanism.start(f"n,,n=user,r={CLIENT}".encode())
    assert mechanism.respond(FINAL.replace(SERVER, "other").encode()) == Failed(syntax=True)


def test_plain_and_login_ask_for_a_check_of_the_password() -> None:
    assert Plain().start(b"\0u\0p") == CheckPassword("u", "p")
    assert Plain().start(b"other\0u\0p") == Failed()
    assert Plain().start(b"u p") == Failed(syntax=True)
    login = Login()
    assert login.start(None) == Challenge(b"Username:")
    assert login.respond(b"u") == Challenge(b"Password:")
    assert login.respond(b"p") == CheckPassword("u", "p")


def test_responses_are_strict_base64() -> None:
    assert (decode(b"="), decode(b"YQ=="), decode(b"YQ"), decode(b"Y Q==")) == (b"", b"a", None, None)


BOUND = Binding({"tls-unique": b"finished", "tls-server-end-point": b"hash"}, announced=True)


def prove(mechanism: Scram, password: str, header: str, bound: bytes = b"", username: str = "user") -> Step:
    """The client's side of RFC 5802 section 3; the last step."""
    first = f"n={username},r=client"
    challenge = mechanism.start(f"{header}{first}".encode())
    if not isinstance(challenge, Challenge):
        return challenge
    server = challenge.data.decode()
    nonce, salt, iterations = (part.partition("=")[2] for part in server.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    final = f"c={base64.b64encode(header.encode() + bound).decode()},r={nonce}"
    signature = hmac.digest(hashlib.sha256(client_key).digest(), f"{first},{server},{final}".encode(), "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    step = mechanism.respond(f"{final},p={base64.b64encode(proof).decode()}".encode())
    return mechanism.respond(b"") if isinstance(step, Challenge) else step


def bound_scram(binding: Binding, *, plus: bool) -> Scram:
    return Scram(lambda name: [VERIFIER] if name == "user" else [], b"secret", binding, plus=plus)


@pytest.mark.parametrize(("kind", "data"), BOUND.data.items())
def test_a_proof_that_is_bound_to_the_channel_passes_and_one_of_another_channel_fails(kind: str, data: bytes) -> None:
    header = f"p={kind},,"
    assert prove(bound_scram(BOUND, plus=True), "pencil", header, data) == Proven("user")
    assert prove(bound_scram(BOUND, plus=True), "pencil", header, b"of the man in the middle") == Disproven("user")
    assert prove(bound_scram(BOUND, plus=True), "pencil", header) == Disproven("user")


@pytest.mark.parametrize("header", ["p=tls-exporter,,", "n,,", "y,,"])
def test_plus_without_a_binding_that_we_have_fails(header: str) -> None:
    assert prove(bound_scram(BOUND, plus=True), "pencil", header, b"finished") == Failed()


def test_a_binding_without_plus_fails() -> None:
    assert prove(bound_scram(BOUND, plus=False), "pencil", "p=tls-unique,,", b"finished") == Failed()


def test_a_client_that_did_not_see_plus_announced_is_told_of_the_downgrade_only_where_it_was() -> None:
    assert prove(bound_scram(BOUND, plus=False), "pencil", "y,,") == Failed()
    assert prove(bound_scram(Binding(BOUND.data, announced=False), plus=False), "pencil", "y,,") == Proven("user")
    assert prove(bound_scram(BOUND, plus=False), "pencil", "n,,") == Proven("user")


def test_both_passwords_of_a_rotation_prove_themselves() -> None:
    verifiers = [derive(password, b"one salt for all") for password in ("new", "old")]
    results = [prove(Scram(lambda _: verifiers, b"", Binding(), plus=False), password, "n,,") for password in ("new", "old", "older")]
    assert results == [Proven("user"), Proven("user"), Disproven("user")]


def test_external_takes_a_name_or_none() -> None:
    assert External().start(None) == Challenge(b"")
    assert External().start(b"") == CheckCertificate("")
    assert External().start(b"app@d.example") == CheckCertificate("app@d.example")
    assert External().start(b"\xff") == Failed(syntax=True)


def test_tokens_are_found_in_both_old_and_new_syntax() -> None:
    new, old = Bearer("OAUTHBEARER"), Bearer("XOAUTH2")
    assert new.start(b"n,,\x01auth=Bearer T\x01\x01") == CheckToken("", "T")
    assert new.start(b"n,a=u=2Cx@d.example,\x01host=h\x01port=587\x01auth=bearer T\x01\x01") == CheckToken("u,x@d.example", "T")
    assert old.start(b"user=u@d.example\x01auth=Bearer T\x01\x01") == CheckToken("u@d.example", "T")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"n,,\x01\x01",
        b"n,,\x01auth=Basic T\x01\x01",
        b"n,,\x01auth=Bearer T",
        b"x,,\x01auth=Bearer T\x01\x01",
        b"\xff",
        b"n,,\x01auth=Bearer \x01\x01",
    ],
)
def test_malformed_token_responses_fail(response: bytes) -> None:
    assert Bearer("OAUTHBEARER").start(response) == Failed(syntax=True)
    assert Bearer("XOAUTH2").start(response) == Failed(syntax=True)


def test_what_is_announced_follows_from_the_connection() -> None:
    assert mechanisms(BOUND, certificate=True, tokens=True) == (
        *("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "EXTERNAL", "OAUTHBEARER", "XOAUTH2"),
    )
    assert mechanisms(Binding(), certificate=False, tokens=False) == ("SCRAM-SHA-256", "PLAIN", "LOGIN")
