"""What a MailDomain leaves, and when ingress has what it says, on a real API server. The test plays ingress: an HTTP server behind an EndpointSlice
that tells the generation of the document in the directory.
"""

import base64
import contextlib
import http.server
import json
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.operator import operating
from integration.operator.apiserver import ApiServer, install_crds
from integration.operator.operating import GROUP, Operator, Place, apply, domain, pool, until
from integration.operator.test_rotation import address_on_loopback

pytestmark = pytest.mark.timeout(240)
INGRESS = "10.88.53.7"
ENDPOINTS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "dnsendpoints.externaldns.k8s.io", "annotations": {"api-approved.kubernetes.io": "https://example.com/a-stand-in"}},
    "spec": {
        "group": "externaldns.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "DNSEndpoint", "listKind": "DNSEndpointList", "plural": "dnsendpoints", "singular": "dnsendpoint"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
def place(api: ApiServer, namespace: Callable[[str], str]) -> Place:
    install_crds(api, [ENDPOINTS])
    return Place(namespace("platform"), namespace("keys"), namespace("tenant"))


@pytest.fixture
def operator(api: ApiServer, place: Place, tmp_path: pathlib.Path) -> Iterator[Operator]:
    with operating.operating(api, place, tmp_path) as found:
        apply(api, place.platform, pool())
        until("it leads", found.leads, operating.START_SECONDS)
        yield found


def key_secrets(api: ApiServer, place: Place) -> list[dict[str, Any]]:
    items = api.get(f"/api/v1/namespaces/{place.keys}/secrets")["items"]
    return [item for item in items if item["type"] == "mail.postroom.dev/dkim-key"]


def selectors(api: ApiServer, place: Place) -> set[str]:
    return {item["metadata"]["annotations"]["mail.postroom.dev/selector"] for item in key_secrets(api, place)}


def endpoint(api: ApiServer, place: Place, name: str) -> Any:
    return api.get(f"/apis/externaldns.k8s.io/v1alpha1/namespaces/{place.tenant}/dnsendpoints/{name}")


def make(api: ApiServer, place: Place, name: str, **spec: Any) -> None:
    apply(api, place.tenant, domain(name, place, **{"domainName": "kept.example", "credentials": [], **spec}))
    until("two keys", lambda: len(key_secrets(api, place)) >= 2)
    until("their records", lambda: (found := endpoint(api, place, name)) and len(found["spec"]["endpoints"]) == 2)


def delete(api: ApiServer, place: Place, name: str) -> None:
    path = f"{GROUP}/{place.tenant}/maildomains/{name}"
    assert api.request("DELETE", path)[0] == 200
    until("it is gone", lambda: api.get(path) is None)


def test_delete_takes_keys_and_records_along(api: ApiServer, place: Place, operator: Operator) -> None:
    make(api, place, "kept")
    delete(api, place, "kept")
    assert key_secrets(api, place) == []
    assert api.get(f"/api/v1/namespaces/{place.keys}/secrets/keyset-kept.example") is None
    # No garbage collector runs here: the operator removes what it made.
    assert endpoint(api, place, "kept") is None


def test_retained_keys_and_records_stay_and_go_on_with_the_next_mail_domain(api: ApiServer, place: Place, operator: Operator) -> None:
    make(api, place, "kept", deletionPolicy="Retain")
    before = selectors(api, place)
    assert "ownerReferences" not in endpoint(api, place, "kept")["metadata"]
    delete(api, place, "kept")
    assert selectors(api, place) == before
    assert api.get(f"/api/v1/namespaces/{place.keys}/secrets/keyset-kept.example") is None  # nobody signs with them meanwhile
    assert endpoint(api, place, "kept") is not None
    labels = key_secrets(api, place)[0]["metadata"]["labels"]
    assert labels["mail.postroom.dev/retained"] == "true" and "mail.postroom.dev/owner-uid" not in labels

    make(api, place, "again")
    until("the old DNSEndpoint is gone", lambda: endpoint(api, place, "kept") is None)
    uid = api.get(f"{GROUP}/{place.tenant}/maildomains/again")["metadata"]["uid"]
    until("the keys are its", lambda: {found["metadata"]["labels"].get("mail.postroom.dev/owner-uid") for found in key_secrets(api, place)} == {uid})
    assert selectors(api, place) == before


def test_another_namespace_gets_keys_of_its_own(api: ApiServer, place: Place, operator: Operator) -> None:
    make(api, place, "kept", deletionPolicy="Retain")
    before = selectors(api, place)
    delete(api, place, "kept")
    # The platform's namespace is watched too, and is another tenant here.
    apply(api, place.platform, domain("thief", place, domainName="kept.example", credentials=[]))
    until("two keys of its own", lambda: len(selectors(api, place) - before) == 2)
    retained = [found for found in key_secrets(api, place) if "mail.postroom.dev/retained" in found["metadata"]["labels"]]
    assert {found["metadata"]["annotations"]["mail.postroom.dev/selector"] for found in retained} == before


class Ingress(http.server.BaseHTTPRequestHandler):
    """Answers as ingress does; `known` is the generation that it has read, 0 for none."""

    known = 0

    def do_GET(self) -> None:
        found = f"{self.known}\n" if self.path == "/generation/held.example" and self.known else ""
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(found.encode())

    def log_message(self, *_: object) -> None:
        """Not in the test's output."""


@contextlib.contextmanager
def ingress(api: ApiServer, place: Place) -> Iterator[int]:
    body = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "ingress", "labels": {"kubernetes.io/service-name": "postroom-ingress"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [INGRESS], "conditions": {"ready": True}}],
    }
    api.apply(f"/apis/discovery.k8s.io/v1/namespaces/{place.platform}/endpointslices/ingress", body)
    with address_on_loopback(INGRESS), http.server.ThreadingHTTPServer((INGRESS, 0), Ingress) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


def test_the_status_tells_which_generation_is_in_force_at_ingress(api: ApiServer, place: Place, tmp_path: pathlib.Path) -> None:
    path = f"{GROUP}/{place.tenant}/maildomains/held"

    def generation() -> int:
        found = api.get(f"/api/v1/namespaces/{place.platform}/secrets/domain-held.example")
        return json.loads(base64.b64decode(found["data"]["document"]))["generation"] if found else 0

    with ingress(api, place) as port, operating.operating(api, place, tmp_path, ingress_http_port=port) as found:
        until("it leads", found.leads, operating.START_SECONDS)
        apply(api, place.platform, pool())
        Ingress.known = 1
        apply(api, place.tenant, domain("held", place))
        until("ingress has it", lambda: api.get(path).get("status", {}).get("limitsGeneration") == 1, 60)
        apply(api, place.tenant, domain("held", place, limits={"messagesPerHour": 10}))
        until("the document is of generation 2", lambda: generation() == 2)
        until("the spec is observed", lambda: api.get(path)["status"]["observedGeneration"] == 2)
        assert api.get(path)["status"]["limitsGeneration"] == 1  # one that is slow to read holds it up
        Ingress.known = 2
        until("ingress has it", lambda: api.get(path)["status"]["limitsGeneration"] == 2, 60)
