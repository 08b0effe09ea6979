"""The operator on a real API server: what it makes, what it repairs, what it says. No controllers and no kubelet run: workloads never get pods."""

import base64
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.operator import operating
from integration.operator.apiserver import ApiServer
from integration.operator.operating import GROUP, Operator, Place, apply, condition, domain, our_writes, pool, until

pytestmark = pytest.mark.timeout(180)
REPAIR_SECONDS = 5.0


@pytest.fixture(scope="module")
def place(api: ApiServer) -> Place:
    found = Place("platform", "platform-keys", "tenant")
    for name in (found.platform, found.keys, found.tenant):
        assert api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})[0] == 201
    return found


@pytest.fixture(scope="module")
def operator(api: ApiServer, place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating.operating(api, place, tmp_path_factory.mktemp("operator"), platform_ca_secret="ca") as found:
        apply(api, place.platform, pool())
        until("it leads", found.leads, operating.START_SECONDS)
        yield found


@pytest.fixture
def secret(api: ApiServer) -> Callable[[str, str], dict[str, str] | None]:
    def read(namespace: str, name: str) -> dict[str, str] | None:
        found = api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()} if found else None

    return read


Read = Callable[[str, str], dict[str, str] | None]


def reconciled(api: ApiServer, place: Place, name: str) -> Any:
    path = f"{GROUP}/{place.tenant}/maildomains/{name}"

    def check() -> Any:
        found = api.get(path)
        return found if found and found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"] else None

    return until(f"{name} is reconciled", check)


def test_a_mail_domain_becomes_documents_keys_and_a_generated_password(api: ApiServer, place: Place, operator: Operator, secret: Read) -> None:
    apply(api, place.tenant, domain("one", place))
    found = reconciled(api, place, "one")
    password = secret(place.tenant, "one-app")
    assert password is not None and password["username"] == "one-app@one.example"
    documents = secret(place.platform, "domain-one.example")
    assert documents is not None
    document = json.loads(documents["document"])
    assert document["delivery_target"] == "dns:///main-delivery.platform.svc.cluster.local:7443"
    assert document["credentials"][0]["username"] == "one-app@one.example"
    assert document["signed"] is True
    assert password["password"] not in "".join(documents.values())
    sender = secret(place.platform, "sender-one.example")
    assert sender is not None and json.loads(sender["document"])["signed"] is True
    keyset = secret(place.keys, "keyset-one.example")
    assert keyset is not None and json.loads(keyset["document"])["keys"] == []  # nothing signs before the world sees its record
    path = f"{GROUP}/{place.tenant}/maildomains/one"
    found = until("both keys", lambda: now if len((now := api.get(path))["status"]["dkim"]["keys"]) == 2 else None)
    assert {key["state"] for key in found["status"]["dkim"]["keys"]} == {"Publishing"}
    assert {record["type"] for record in found["status"]["dnsRecords"]} == {"TXT"}
    assert condition(found, "Accepted") == ("True", "Accepted")
    assert condition(found, "Ready") == ("False", "WaitingForDNS")


def test_no_private_key_or_password_is_in_status_events_or_logs(api: ApiServer, place: Place, operator: Operator, secret: Read) -> None:
    apply(api, place.tenant, domain("quiet", place))
    found = reconciled(api, place, "quiet")
    password = secret(place.tenant, "quiet-app")
    assert password is not None
    keys = api.get(f"/api/v1/namespaces/{place.keys}/secrets")["items"]
    private = [base64.b64decode(key["data"]["tls.key"]).decode().splitlines()[1] for key in keys if key["type"] == "mail.postroom.dev/dkim-key"]
    assert private
    events = api.get(f"/apis/events.k8s.io/v1/namespaces/{place.tenant}/events")
    shown = json.dumps([found, events]) + operator.log.read_text()
    assert not [text for text in [password["password"], *private] if text in shown]


def test_the_second_claim_of_a_domain_is_refused_and_takes_over_when_the_first_ends(api: ApiServer, place: Place, operator: Operator) -> None:
    apply(api, place.tenant, domain("claimed", place))
    reconciled(api, place, "claimed")
    time.sleep(1.1)  # creation times have whole seconds
    rival = domain("rival", place, domainName="claimed.example", credentials=[])
    apply(api, place.tenant, rival)
    found = reconciled(api, place, "rival")
    assert condition(found, "Accepted") == ("False", "DomainConflict")
    assert condition(found, "Ready") == ("False", "DomainConflict")
    assert api.request("DELETE", f"{GROUP}/{place.tenant}/maildomains/claimed")[0] == 200
    path = f"{GROUP}/{place.tenant}/maildomains/rival"
    until("the rival is accepted", lambda: condition(api.get(path), "Accepted") == ("True", "Accepted"), 20)
    document = until("its document is there", lambda: api.get(f"/api/v1/namespaces/{place.platform}/secrets/domain-claimed.example"))
    assert document["metadata"]["labels"]["mail.postroom.dev/owner-name"] == "rival"


def test_a_webhook_waits_for_its_secret_and_follows_it_while_the_domain_is_in_force(
    api: ApiServer, place: Place, operator: Operator, secret: Read
) -> None:
    hook = {"name": "app", "url": "https://hooks.example/x", "events": ["Bounced"], "secretRef": {"name": "hook"}}
    apply(api, place.tenant, domain("told", place, webhooks=[hook]))
    path = f"{GROUP}/{place.tenant}/maildomains/told"
    until("Invalid", lambda: condition(api.get(path), "WebhooksReady") == ("False", "Invalid"))
    assert condition(api.get(path), "Accepted") == ("True", "Accepted")
    assert secret(place.platform, "domain-told.example") is not None

    def secrets() -> list[str]:
        found = secret(place.platform, "sender-told.example")
        return [text for hook in json.loads(found["document"])["webhooks"] for text in hook["secrets"]] if found else []

    assert secrets() == []
    first, second = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))
    secrets_path = f"/api/v1/namespaces/{place.tenant}/secrets"
    assert api.request("POST", secrets_path, {"metadata": {"name": "hook"}, "stringData": {"secret": first}})[0] == 201
    until("InForce", lambda: condition(api.get(path), "WebhooksReady") == ("True", "InForce"), 40)
    assert secrets() == [first]
    api.apply(f"{secrets_path}/hook", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "stringData": {"secret": second}})
    until("the new secret", lambda: secrets() == [second], 10)
    shown = json.dumps(api.get(path)) + operator.log.read_text()
    assert first not in shown and second not in shown


@pytest.mark.parametrize(
    ("name", "spec", "reason"),
    [
        ("lost", {"poolRef": {"name": "nowhere"}}, "PoolNotFound"),
        ("outside", {"poolRef": {"name": "closed", "namespace": "platform"}}, "NotAllowedByPool"),
    ],
)
def test_a_domain_that_its_pool_does_not_admit_says_so(
    api: ApiServer, place: Place, operator: Operator, name: str, spec: dict[str, Any], reason: str
) -> None:
    apply(api, place.platform, pool("closed", domains={"namespaces": {"from": "Same"}}))
    apply(api, place.tenant, domain(name, place, **spec))
    path = f"{GROUP}/{place.tenant}/maildomains/{name}"
    until(reason, lambda: condition(api.get(path), "Accepted") == ("False", reason), 15)
    assert api.get(f"/api/v1/namespaces/{place.platform}/secrets/domain-{name}.example") is None


def test_a_pool_with_sqlite_is_one_pod_with_a_volume_and_is_not_scalable(api: ApiServer, place: Place, operator: Operator) -> None:
    found = until("the StatefulSet", lambda: api.get(f"/apis/apps/v1/namespaces/{place.platform}/statefulsets/main-delivery"))
    assert found["spec"]["replicas"] == 1
    assert found["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "spool"
    path = f"{GROUP}/{place.platform}/sendingpools/main"
    until("EmbeddedSpool", lambda: condition(api.get(path), "Scalable") == ("False", "EmbeddedSpool"))
    for plural, group in (("services", "/api/v1"), ("poddisruptionbudgets", "/apis/policy/v1"), ("networkpolicies", "/apis/networking.k8s.io/v1")):
        assert api.get(f"{group}/namespaces/{place.platform}/{plural}/main-delivery") is not None


def test_a_pool_with_postgresql_is_a_deployment_whose_replicas_an_hpa_owns(api: ApiServer, place: Place, operator: Operator, secret: Read) -> None:
    uri = "postgresql://u:secretword@db/x"
    body = {"metadata": {"name": "db"}, "stringData": {"uri": uri}}
    assert api.request("POST", f"/api/v1/namespaces/{place.tenant}/secrets", body)[0] == 201
    apply(api, place.tenant, pool("wide", spool={"secretRef": {"name": "db"}}))
    deployments = f"/apis/apps/v1/namespaces/{place.platform}/deployments/tenant-wide-delivery"
    found = until("the Deployment", lambda: api.get(deployments))
    assert "f:replicas" not in json.dumps(found["metadata"]["managedFields"])  # the API server's default, owned by nobody
    scaler = until("the HPA", lambda: api.get(f"/apis/autoscaling/v2/namespaces/{place.platform}/horizontalpodautoscalers/tenant-wide-delivery"))
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 20)
    assert secret(place.platform, "tenant-wide-delivery-database") == {"uri": uri}
    path = f"{GROUP}/{place.tenant}/sendingpools/wide"
    shown = until("its status", lambda: (api.get(path) or {}).get("status"))
    assert "secretword" not in json.dumps([shown, found])
    document = secret(place.platform, "pool-tenant.wide")
    assert document is not None and json.loads(document["document"])["name"] == "tenant/wide"


def test_a_deleted_and_an_edited_child_are_repaired_and_foreign_fields_stay(api: ApiServer, place: Place, operator: Operator) -> None:
    apply(api, place.tenant, domain("drift", place))
    reconciled(api, place, "drift")
    path = f"/api/v1/namespaces/{place.platform}/secrets/domain-drift.example"
    before = until("the document", lambda: api.get(path))
    assert api.request("DELETE", path)[0] == 200
    until("it is back", lambda: (api.get(path) or {}).get("data") == before["data"], REPAIR_SECONDS)
    service = f"/api/v1/namespaces/{place.platform}/services/main-delivery"
    edit = {"metadata": {"annotations": {"mesh.example/inject": "yes"}}, "spec": {"selector": {"app.kubernetes.io/instance": "nonsense"}}}
    assert api.request("PATCH", service, edit, "application/merge-patch+json")[0] == 200
    until("the selector", lambda: api.get(service)["spec"]["selector"]["app.kubernetes.io/instance"] == "main-delivery", REPAIR_SECONDS)
    assert api.get(service)["metadata"]["annotations"]["mesh.example/inject"] == "yes"
    credential = f"/api/v1/namespaces/{place.tenant}/secrets/drift-app"
    assert api.request("DELETE", credential)[0] == 200
    until("the password's Secret", lambda: api.get(credential), REPAIR_SECONDS)


def test_a_certificate_between_services_is_made_again_when_it_was_deleted_or_edited(api: ApiServer, place: Place, operator: Operator) -> None:
    path = f"/api/v1/namespaces/{place.platform}/secrets/postroom-signer-tls"
    before = until("the certificate", lambda: api.get(path))
    assert api.request("DELETE", path)[0] == 200
    until("it is back", lambda: (api.get(path) or before)["metadata"]["uid"] != before["metadata"]["uid"], REPAIR_SECONDS)
    edit = {"data": {"ca.crt": base64.b64encode(b"another").decode()}}
    assert api.request("PATCH", path, edit, "application/merge-patch+json")[0] == 200
    until("its CA is the platform's again", lambda: api.get(path)["data"]["ca.crt"] == before["data"]["ca.crt"], REPAIR_SECONDS)


def test_a_changed_password_is_in_force_and_the_old_one_stays_for_the_overlap(api: ApiServer, place: Place, operator: Operator, secret: Read) -> None:
    credential = {"name": "app", "secretRef": {"name": "turn-app"}, "allowedSenders": ["*@turn.example"]}
    rotation = {"interval": "48h", "overlap": "24h"}
    apply(api, place.tenant, domain("turn", place, credentials=[{**credential, "rotation": rotation}]))
    reconciled(api, place, "turn")

    def verifiers() -> list[str]:
        found = secret(place.platform, "domain-turn.example") or {"document": '{"credentials": []}'}
        return [verifier["scrypt"]["salt"] for entry in json.loads(found["document"])["credentials"] for verifier in entry["verifiers"]]

    first = until("a verifier", verifiers)
    assert len(first) == 1
    path = f"/api/v1/namespaces/{place.tenant}/secrets/turn-app"
    assert api.request("PATCH", path, {"stringData": {"password": "another"}}, "application/merge-patch+json")[0] == 200
    second = until("two verifiers", lambda: found if len(found := verifiers()) == 2 else None)
    assert second[1:] == first
    # a generated password whose time has come is renewed by the operator itself
    annotations = {"metadata": {"annotations": {"mail.postroom.dev/generated-at": "2020-01-01T00:00:00Z"}}}
    assert api.request("PATCH", path, annotations, "application/merge-patch+json")[0] == 200
    until("a new password", lambda: (secret(place.tenant, "turn-app") or {})["password"] != "another")


def test_nothing_is_written_while_nothing_changes(api: ApiServer, place: Place, operator: Operator) -> None:
    apply(api, place.tenant, domain("calm", place))
    looked_at(api, place)
    assert _writes_within(api, 10.0) == []


def looked_at(api: ApiServer, place: Place) -> None:
    """Every MailDomain's records have been looked at; they are in nobody's DNS."""

    def all_seen() -> bool:
        found = api.get(f"{GROUP}/{place.tenant}/maildomains")["items"]
        return all(condition(item, "DNSReady")[1] in ("RecordMissing", "NotAccepted") for item in found)

    until("every look", all_seen, 60)
    until("quiet", lambda: not _writes_within(api, 2.0), 30)


def _writes_within(api: ApiServer, seconds: float) -> list[str]:
    before = len(api.writes())
    time.sleep(seconds)
    return our_writes(api, before)


def test_a_restart_writes_nothing_and_a_killed_leader_is_followed(api: ApiServer, place: Place, operator: Operator, tmp_path: pathlib.Path) -> None:
    apply(api, place.tenant, domain("stay", place))
    reconciled(api, place, "stay")
    with operating.operating(api, place, tmp_path) as second:
        until("the second waits", lambda: "200" in str(_status(second)), 20)
        assert not second.leads()
        looked_at(api, place)
        before = len(api.writes())
        operator.kill()
        killed = time.monotonic()
        until("the second leads", second.leads, 20)
        assert time.monotonic() - killed < 3 * 17 / 15 + 2  # a Lease of 3 s here, 15 s in a cluster
        until("it has looked at everything", lambda: second.metric('postroom_operator_reconciles_total{kind="MailDomain",outcome="done"}') > 0, 40)
        assert our_writes(api, before) == []
        third = tmp_path / "third"
        third.mkdir()
        with operating.operating(api, place, third) as last:
            until("the third waits", lambda: "200" in str(_status(last)), 20)
            second.process.terminate()
            ended = time.monotonic()
            until("the third leads", last.leads, 10)
            assert time.monotonic() - ended < 3 + 1
            second.process.wait(20)


def _status(operator: Operator) -> int | None:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.http}/readyz", timeout=2) as answer:
            return int(answer.status)
    except OSError:
        return None
