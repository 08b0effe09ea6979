"""The platform's CA and certificates: what is made, when it is made anew, and that gRPC's side takes them."""

import base64
import copy
import datetime
import pathlib
from typing import Any

import pytest
from cryptography import x509

from postroom_core import mtls
from postroom_operator.plan import pki

PLACE = pki.Place("postroom", "mail", "mail-keys", "postroom-ca")
NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


def applied(secrets: list[pki.Object], before: tuple[pki.Object | None, dict[str, pki.Object]] = (None, {})) -> tuple[Any, dict[str, pki.Object]]:
    """What is there after the writes, as (CA, leaves)."""
    ca, leaves = before[0], dict(before[1])
    for secret in copy.deepcopy(secrets):
        secret["metadata"]["resourceVersion"] = "2"
        name = secret["metadata"]["name"]
        if name == "postroom-ca":
            ca = secret
        else:
            leaves[name.removeprefix("postroom-").removesuffix("-tls")] = secret
    return ca, leaves


def mounted(secret: pki.Object, folder: pathlib.Path) -> mtls.Material:
    folder.mkdir()
    for name, value in secret["data"].items():
        (folder / name).write_bytes(base64.b64decode(value))
    return mtls.read(folder)


def test_an_empty_cluster_gets_a_ca_and_a_certificate_for_each_service(tmp_path: pathlib.Path) -> None:
    made = pki.due(None, {}, PLACE, NOW)
    assert [secret["metadata"]["name"] for secret in made] == ["postroom-ca", *(f"postroom-{service}-tls" for service in pki.SERVICES)]
    assert [secret["metadata"]["namespace"] for secret in made] == ["mail-keys", *["mail"] * len(pki.SERVICES)]
    ca, leaves = applied(made)
    for service in pki.SERVICES:
        material = mounted(leaves[service], tmp_path / service)
        assert material.identity == f"{service}.mail.svc"
        assert base64.b64decode(ca["data"]["tls.key"]) not in (material.private_key, material.ca)


def test_nothing_is_written_while_all_is_well_and_each_is_renewed_at_two_thirds_of_its_life() -> None:
    world = applied(pki.due(None, {}, PLACE, NOW))
    assert pki.due(*world, PLACE, NOW + datetime.timedelta(days=19)) == []
    renewed = pki.due(*world, PLACE, NOW + datetime.timedelta(days=21))
    assert [secret["metadata"]["name"] for secret in renewed] == [f"postroom-{service}-tls" for service in pki.SERVICES]
    assert all(secret["metadata"]["resourceVersion"] == "2" for secret in renewed)
    assert pki.due(*applied(renewed, world), PLACE, NOW + datetime.timedelta(days=21)) == []


@pytest.mark.parametrize("field", ["tls.crt", "tls.key", "ca.crt"])
def test_a_secret_that_was_edited_is_repaired_and_no_other_is_touched(field: str) -> None:
    ca, leaves = applied(pki.due(None, {}, PLACE, NOW))
    leaves["signer"]["data"][field] = base64.b64encode(b"nonsense").decode()
    assert [secret["metadata"]["name"] for secret in pki.due(ca, leaves, PLACE, NOW)] == ["postroom-signer-tls"]
    del leaves["signer"]
    assert [secret["metadata"]["name"] for secret in pki.due(ca, leaves, PLACE, NOW)] == ["postroom-signer-tls"]


def test_a_lost_ca_is_made_anew_with_all_that_it_signed() -> None:
    _, leaves = applied(pki.due(None, {}, PLACE, NOW))
    made = pki.due(None, leaves, PLACE, NOW)
    assert len(made) == 1 + len(pki.SERVICES)
    assert pki.due(*applied(made), PLACE, NOW) == []


def test_a_certificate_of_another_namespace_is_not_taken_for_ours() -> None:
    ca, leaves = applied(pki.due(None, {}, pki.Place("postroom", "other", "mail-keys", "postroom-ca"), NOW))
    assert len(pki.due(ca, leaves, PLACE, NOW)) == len(pki.SERVICES)


def test_no_leaf_can_sign_another() -> None:
    _, leaves = applied(pki.due(None, {}, PLACE, NOW))
    leaf = x509.load_pem_x509_certificate(base64.b64decode(leaves["cli"]["data"]["tls.crt"]))
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
