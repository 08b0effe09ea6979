"""Our signatures, judged by verifiers that others wrote: dkimpy (Python), Mail::DKIM (Perl), mailauth (JavaScript). No network: keys come by stubs.

Also the other way round: what an attacker adds to a signed message must make every one of them say no (oversigning, RFC 6376 section 5.4.2).
"""

import functools
import json
import pathlib
import shutil
import subprocess
from collections.abc import Callable

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroom_core.bodyhash import RelaxedBodyHash
from postroom_core.documents import SigningKey
from postroom_core.headers import check, parse
from postroom_operator.plan.keys import StoredKey, describe
from postroom_signer.dkim import signature_field
from postroom_signer.keys import load

HERE = pathlib.Path(__file__).parent
NOW = 1_795_000_000
Results = list[tuple[str, str]]


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


PEMS = {"rsa": _pem(rsa.generate_private_key(65537, 2048)), "ed": _pem(ed25519.Ed25519PrivateKey.generate())}
KEYS = [
    load(SigningKey(selector="rsa", algorithm="RSA2048", private_key=PEMS["rsa"])),
    load(SigningKey(selector="ed", algorithm="Ed25519", private_key=PEMS["ed"])),
]
RECORDS = {f"{s}._domainkey.d.example": StoredKey("d.example", s, *describe(pem), active=True, private=pem).record for s, pem in PEMS.items()}


def signed(header: bytes, body: bytes) -> bytes:
    """The message as Postroom sends it."""
    fields = parse(header)
    check(fields)
    body_hash = RelaxedBodyHash()
    body_hash.feed(body)
    made = b"".join(signature_field(fields, body_hash.digest(), "d.example", key, NOW) for key in KEYS)
    return made + header + b"\r\n" + body


def by_dkimpy(message: bytes) -> Results:
    def answer(name: bytes, timeout: int = 5) -> bytes | None:
        text = RECORDS.get(name.decode().rstrip("."))
        return text.encode() if text is not None else None

    results = []
    for index, key in enumerate(KEYS):
        try:
            good = dkimpy.DKIM(message, minkey=1024).verify(idx=index, dnsfunc=answer)
        except dkimpy.DKIMException:
            good = False
        results.append((key.tag, "pass" if good else "fail"))
    return results


def _by_program(command: list[str], message: bytes) -> Results:
    done = subprocess.run(command, input=message, capture_output=True, timeout=30, cwd=HERE)
    assert done.returncode == 0, done.stderr.decode()
    return [(line.split()[0], line.split()[1]) for line in done.stdout.decode().splitlines()]


def by_mail_dkim(message: bytes) -> Results:
    return _by_program(["perl", "verify.pl", *(f"{name}={text}" for name, text in RECORDS.items())], message)


def by_mailauth(message: bytes) -> Results:
    return _by_program(["node", "verify.mjs", json.dumps(RECORDS)], message)


@functools.cache
def _why_not(name: str) -> str:
    if name == "Mail::DKIM":
        found = (
            shutil.which("perl") and subprocess.run(["perl", "-MMail::DKIM::Verifier", "-MNet::DNS", "-e", "1"], capture_output=True).returncode == 0
        )
        return "" if found else "Mail::DKIM is not installed"
    if name == "mailauth":
        found = shutil.which("node") and (HERE / "node_modules" / "mailauth").exists()
        return "" if found else "mailauth is not installed (npm install in tests/contract/dkim)"
    return ""


VERIFIERS: dict[str, Callable[[bytes], Results]] = {"dkimpy": by_dkimpy, "Mail::DKIM": by_mail_dkim, "mailauth": by_mailauth}
BASE = b"From: A <a@d.example>\r\nTo: b@x.example\r\nSubject: test\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n"
MESSAGES = {
    "plain": (BASE, b"hello\r\n"),
    "eight bit": (BASE + "X-Name: Jürgen\r\n".encode(), "grüße\r\n".encode()),
    "folded": (BASE + b"References: <a@x>\r\n <b@x>\r\n\t<c@x>\r\nList-Unsubscribe: <https://d.example/u>\r\n", b"x\r\n"),
    "white space": (BASE + b"Reply-To:   a@d.example  \r\n", b" a  b\tc \r\n\t\r\n  \r\nend \t \r\n"),
    "empty body": (BASE, b""),
    "trailing blank lines": (BASE, b"x\r\n\r\n\r\n\r\n"),
    "only blank lines": (BASE, b"\r\n\r\n"),
    "dots": (BASE, b".\r\n..\r\n.a\r\n"),
    "names in other cases": (b"FROM: a@d.example\r\nsUbJeCt:x\r\n", b"x\r\n"),
    "an empty field": (BASE + b"In-Reply-To:\r\n", b"x\r\n"),
}


@pytest.fixture(params=sorted(VERIFIERS))
def verifier(request: pytest.FixtureRequest) -> Callable[[bytes], Results]:
    if reason := _why_not(request.param):
        pytest.skip(reason)
    return VERIFIERS[request.param]


@pytest.mark.parametrize("name", MESSAGES)
def test_both_signatures_pass(verifier: Callable[[bytes], Results], name: str) -> None:
    results = dict(verifier(signed(*MESSAGES[name])))
    assert results["rsa-sha256"] == "pass"
    # Mail::DKIM before 2023 does not know Ed25519 and says `invalid`, as RFC 6376 section 6.1 asks; it must not say that the signature fails.
    assert results["ed25519-sha256"] in (("pass", "invalid") if verifier is by_mail_dkim else ("pass",))


ADDED = [
    b"From: evil@e.example\r\n",
    b"Subject: evil\r\n",
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\n",
    b"List-Unsubscribe: <https://e>\r\n",
    b"Cc: e@e\r\n",
]


@pytest.mark.parametrize("added", ADDED)
def test_a_field_added_to_a_signed_message_fails(verifier: Callable[[bytes], Results], added: bytes) -> None:
    message = signed(*MESSAGES["plain"])
    assert all(result != "pass" for _, result in verifier(added + message))


def test_a_changed_body_fails(verifier: Callable[[bytes], Results]) -> None:
    assert all(result != "pass" for _, result in verifier(signed(*MESSAGES["plain"]).replace(b"hello", b"hullo")))
