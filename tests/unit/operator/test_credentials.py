"""How a MailDomain's credentials and limits become the document that ingress reads."""

import pathlib

import pytest
import trustme

from postroom_core.documents import ClientCertificate, Limits, ServiceAccount
from postroom_operator import resources
from postroom_operator.plan.compile import Observed, Plan, compile_resources
from postroom_operator.verifiers import derive, salt_of

POOL = "apiVersion: mail.postroom.dev/v1alpha1\nkind: SendingPool\nmetadata: {name: main}\nspec: {tenantLimits: {messagesPerHour: 7}}\n---\n"
DOMAIN = """apiVersion: mail.postroom.dev/v1alpha1
kind: MailDomain
metadata: {name: d, namespace: shop}
spec:
  domainName: d.example
  poolRef: {name: main, namespace: default}
"""


def plan(folder: pathlib.Path, text: str, observed: Observed | None = None) -> Plan:
    path = folder / "mail.yaml"
    path.write_text(POOL + DOMAIN + text)
    return compile_resources(resources.read(path), observed or Observed())


def test_a_credential_without_a_password_is_proven_by_accounts_and_certificates(tmp_path: pathlib.Path) -> None:
    authority = trustme.CA().cert_pem.bytes().decode()
    block = "".join(f"    {line}\n" for line in authority.splitlines())
    made = plan(
        tmp_path,
        """  credentials:
  - name: app
    allowedSenders: ["*@d.example"]
    serviceAccounts: [{name: mailer}, {name: other, namespace: x}]
    clientCertificate: {authorityRef: {name: ca}, names: [app.d.example]}
    limits: {messagesPerHour: 5, recipientsPerDay: 9, maxConnections: 2}
  limits: {recipientsPerHour: 10}
---
kind: Secret
metadata: {name: ca, namespace: shop}
stringData:
  ca.crt: |
"""
        + block,
    )
    assert made.problems == []
    (document,) = made.ingress
    assert document.kind == "domain"
    (credential,) = document.credentials
    assert (credential.username, credential.verifiers) == ("app@d.example", ())
    assert credential.service_accounts == (ServiceAccount(namespace="shop", name="mailer"), ServiceAccount(namespace="x", name="other"))
    assert credential.client_certificate == ClientCertificate(authorities=authority, names=("app.d.example",))
    assert credential.limits == Limits(messages_per_hour=5, recipients_per_day=9, max_connections=2)
    assert document.limits == Limits(recipients_per_hour=10)
    (pool,) = [document for document in made.delivery if document.kind == "pool"]
    assert pool.tenant_limits == Limits(messages_per_hour=7)


def test_a_previous_password_is_valid_beside_the_new_one(tmp_path: pathlib.Path) -> None:
    text = """  credentials: [{name: app, secretRef: {name: app}, allowedSenders: ["*@d.example"]}]
---
kind: Secret
metadata: {name: app, namespace: shop}
stringData: {username: u, password: new, previousPassword: old}
"""
    wanted = plan(tmp_path, text).wanted_verifiers
    assert wanted == [("u", "new"), ("u", "old")]
    verifiers = {login: derive(login[1], salt_of(b"pepper", login[0])) for login in wanted}
    (document,) = plan(tmp_path, text, Observed(verifiers=verifiers)).ingress
    assert document.kind == "domain"
    (credential,) = document.credentials
    assert credential.verifiers == (verifiers["u", "new"], verifiers["u", "old"])
    assert len({verifier.scram.salt for verifier in credential.verifiers}) == 1


@pytest.mark.parametrize(
    ("credential", "problem"),
    [
        ("{name: app, allowedSenders: ['*@d.example']}", "one of secretRef, serviceAccounts and clientCertificate is needed"),
        (
            "{name: app, allowedSenders: ['*@d.example'], clientCertificate: {authorityRef: {name: none}, names: [x]}}",
            "no Secret none with certificates in PEM under ca.crt",
        ),
        (
            "{name: app, allowedSenders: ['*@d.example'], serviceAccounts: [{name: x}], limits: {recipientsPerHour: 2, recipientsPerDay: 1}}",
            "recipientsPerHour exceeds recipientsPerDay",
        ),
    ],
)
def test_what_cannot_work_is_told_with_its_line(tmp_path: pathlib.Path, credential: str, problem: str) -> None:
    (found,) = plan(tmp_path, f"  credentials:\n  - {credential}\n").problems
    assert problem in found
    assert "mail.yaml:" in found
