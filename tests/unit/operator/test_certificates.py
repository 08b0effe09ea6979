"""spec.tls of a MailDomain on one machine."""

import datetime
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from postroom_cli.layout import Layout
from postroom_cli.store import Store
from postroom_core.documents import Certificate
from postroom_core.testing.certificate import self_signed
from postroom_operator import resources
from postroom_operator.plan.certificates import Wanted
from postroom_operator.plan.compile import Observed, Plan, compile_resources

NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
MADE, OTHER = self_signed("smtp.d.example"), self_signed("other.example")


def plan(folder: pathlib.Path, tls: Mapping[str, object], observed: Observed | None = None, secret: Mapping[str, str] | None = None) -> Plan:
    api = "mail.postroom.dev/v1alpha1"
    documents: list[dict[str, Any]] = [
        {"apiVersion": api, "kind": "SendingPool", "metadata": {"name": "main"}, "spec": {}},
        {
            "apiVersion": api,
            "kind": "MailDomain",
            "metadata": {"name": "d"},
            "spec": {"domainName": "d.example", "poolRef": {"name": "main"}, "tls": dict(tls)},
        },
    ]
    if secret:
        documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own"}, "stringData": dict(secret)})
    (folder / "mail.yaml").write_text(yaml.safe_dump_all(documents))
    return compile_resources(resources.read(folder / "mail.yaml"), observed or Observed())


def test_a_certificate_of_ones_own_goes_to_ingress_with_its_host_names(tmp_path: pathlib.Path) -> None:
    tls = {"hostnames": ["smtp.d.example", "*.d.example"], "secretRef": {"name": "own"}}
    found = plan(tmp_path, tls, secret={"tls.crt": MADE.certificate.decode(), "tls.key": MADE.key.decode()})
    assert not found.problems
    (certificate,) = (document for document in found.ingress if isinstance(document, Certificate))
    assert (certificate.name, certificate.hostnames) == ("default/d", ("smtp.d.example", "*.d.example"))


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ({}, "spec.tls.secretRef: no Secret own with tls.crt and tls.key"),
        ({"tls.crt": MADE.certificate.decode(), "tls.key": OTHER.key.decode()}, "spec.tls.secretRef: tls.key does not belong to tls.crt"),
        ({"tls.crt": "x", "tls.key": "y"}, "spec.tls.secretRef: tls.crt is not a certificate in PEM"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told(tmp_path: pathlib.Path, secret: dict[str, str], problem: str) -> None:
    found = plan(tmp_path, {"hostnames": ["smtp.d.example"], "secretRef": {"name": "own"}}, secret=secret)
    assert problem in "\n".join(found.problems)


def test_without_a_secret_one_is_made_once_and_again_when_the_names_change(tmp_path: pathlib.Path) -> None:
    store = Store(Layout(tmp_path / "data"))
    (wanted,) = plan(tmp_path, {"hostnames": ["smtp.d.example"]}).wanted_certificates
    assert wanted == Wanted("default/d", ("smtp.d.example",))
    store.make_certificate(wanted.name, wanted.hostnames, NOW)
    observed = store.observe("mta.d.example", NOW)
    found = plan(tmp_path, {"hostnames": ["smtp.d.example"]}, observed)
    assert not found.wanted_certificates
    assert [d.name for d in found.ingress if isinstance(d, Certificate)] == ["default/d", "default"]
    assert plan(tmp_path, {"hostnames": ["a.d.example"]}, observed).wanted_certificates
    later = store.observe("mta.d.example", NOW + datetime.timedelta(days=380))
    assert plan(tmp_path, {"hostnames": ["smtp.d.example"]}, later).wanted_certificates, "it ends soon"
