"""What `helm test` makes and what it says of a message: the signature is judged by dkimpy, not by the code that made it."""

import pathlib
from typing import Any

import dkim
import jsonschema
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroom_cli import clustertest
from postroom_cli.clustertest import Settings

from architecture.tree import ROOT

SETTINGS = Settings(platform_namespace="mail", test_address="10.0.0.9", test_submission="ingress:587", test_secrets=pathlib.Path("/secrets"))
DOMAIN = "mail.helm-test.invalid"
CONTENT = b"From: test@mail.helm-test.invalid\r\nSubject: x\r\n\r\nhello\r\n"


def pem() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


class Received:
    def __init__(self, content: bytes) -> None:
        self.content = content


def fault(content: bytes, key: str) -> str:
    received: Any = Received(content)
    return clustertest.fault(received, key, DOMAIN)


def signed(key: str, selector: bytes = b"test", domain: bytes = DOMAIN.encode()) -> bytes:
    return bytes(dkim.sign(CONTENT, selector, domain, key.encode())) + CONTENT


def test_a_signature_counts_only_when_it_is_the_domains_own_and_verifies() -> None:
    key = pem()
    assert fault(signed(key), key) == ""
    assert "no DKIM signature" in fault(CONTENT, key)
    assert "does not verify" in fault(signed(key).replace(b"hello", b"hullo"), key)
    assert "does not verify" in fault(signed(pem()), key)
    assert "other._domainkey" in fault(signed(key, b"other"), key)
    assert "elsewhere.example" in fault(signed(key, domain=b"elsewhere.example"), key)


def test_what_it_makes_is_valid_by_the_crds() -> None:
    crds = {crd["spec"]["names"]["kind"]: crd for crd in (yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml"))}
    made = [body for _, body in clustertest.resources(SETTINGS)]
    assert {body["kind"] for body in made} == set(crds)
    for body in made:
        schema = crds[body["kind"]]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        jsonschema.validate(body["spec"], schema)
    pool = next(body for body in made if body["kind"] == "SendingPool")
    assert pool["spec"]["routes"][0]["smartHost"]["host"] == "10.0.0.9"  # all of its mail comes back to the test's own pod


@pytest.mark.parametrize("bad", ["ingress", "ingress:", ":587x"])
def test_where_to_submit_must_be_a_host_and_a_port(bad: str) -> None:
    with pytest.raises(ValueError, match="test_submission"):
        Settings(platform_namespace="mail", test_address="10.0.0.9", test_submission=bad, test_secrets=pathlib.Path("/"))


def test_the_key_may_be_in_either_form_of_pem() -> None:
    key = rsa.generate_private_key(65537, 2048)
    forms = [key.private_bytes(Encoding.PEM, form, NoEncryption()).decode() for form in (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8)]
    content = signed(forms[0])
    assert [fault(content, form) for form in forms] == ["", ""]
