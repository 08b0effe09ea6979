"""SASL without sockets: the vector of RFC 7677, and that unknown users take the same steps as known ones."""

import base64
import hashlib
import hmac

import pytest

from postroom_core.documents import ScramVerifier, ScryptVerifier, Verifier
from postroom_ingress.sasl import Challenge, CheckPassword, Failed, Login, Plain, Proven, Scram, decode

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
    return Scram(lambda name: [VERIFIER] if name == "user" else [], b"secret", SERVER)


def test_the_vector_of_rfc_7677_passes() -> None:
    mechanism = scram()
    assert mechanism.start(f"n,,n=user,r={CLIENT}".encode()) == Challenge(f"r={CLIENT}{SERVER},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    assert mechanism.respond(FINAL.encode()) == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert mechanism.respond(b"") == Proven("user")


def test_a_wrong_proof_fails() -> None:
    mechanism = scram()
    mechanism.start(f"n,,n=user,r={CLIENT}".encode())
    assert mechanism.respond(FINAL.replace("p=dHzb", "p=eHzb").encode()) == Failed()


def test_an_unknown_user_gets_a_stable_salt_and_fails_only_at_the_end() -> None:
    first = [scram().start(f"n,,n=nobody,r={CLIENT}".encode()) for _ in range(2)]
    assert isinstance(first[0], Challenge)
    assert first[0] == first[1]
    mechanism = scram()
    mechanism.start(f"n,,n=nobody,r={CLIENT}".encode())
    assert mechanism.respond(FINAL.encode()) == Failed()


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
