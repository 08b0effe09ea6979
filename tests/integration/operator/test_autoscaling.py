"""Who scales a pool, on a real API server: KEDA where its kind is served, else the HPA of Kubernetes.

The ScaledObject kind is a stand-in without KEDA's schema and nobody reconciles it: the test plays KEDA's part, which copies our labels to its HPA.
"""

import base64
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from integration.operator import operating
from integration.operator.apiserver import ApiServer, install_crds
from integration.operator.operating import GROUP, Operator, Place, apply, condition, pool, until

pytestmark = pytest.mark.timeout(180)
PLACE = Place("scaling", "scaling-keys", "scaling-tenant")
HPAS = f"/apis/autoscaling/v2/namespaces/{PLACE.platform}/horizontalpodautoscalers"
SCALED = f"/apis/keda.sh/v1alpha1/namespaces/{PLACE.platform}/scaledobjects"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{PLACE.platform}/deployments/fast-delivery"
KEDA = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "listKind": "ScaledObjectList", "plural": "scaledobjects", "singular": "scaledobject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


POOL = pool("fast", spool={"secretRef": {"name": "database"}})
PATH = f"{GROUP}/{PLACE.platform}/sendingpools/fast"


@pytest.fixture(scope="module", autouse=True)
def world(api: ApiServer) -> None:
    for name in (PLACE.platform, PLACE.keys, PLACE.tenant):
        assert api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})[0] == 201
    uri = base64.b64encode(b"postgresql://nobody@127.0.0.1:9/none").decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "database", "namespace": PLACE.platform}, "data": {"uri": uri}}
    assert api.request("POST", f"/api/v1/namespaces/{PLACE.platform}/secrets", secret)[0] == 201
    apply(api, PLACE.platform, POOL)


@pytest.fixture
def operator(api: ApiServer, tmp_path: pathlib.Path) -> Iterator[Operator]:
    """A new one for each test: it looks for kinds of others once in five minutes."""
    with operating.operating(api, PLACE, tmp_path) as found:
        until("it leads", found.leads, operating.START_SECONDS)
        yield found


def scaler(api: ApiServer) -> Any:
    return api.get(PATH).get("status", {}).get("autoscaler")


def test_without_keda_auto_is_an_hpa(api: ApiServer, operator: Operator) -> None:
    until("an HPA", lambda: api.get(f"{HPAS}/fast-delivery"))
    until("it is told", lambda: scaler(api) == {"provider": "HPA", "name": "fast-delivery"})
    ours = [entry for entry in api.get(DEPLOYMENT)["metadata"]["managedFields"] if entry["manager"].startswith("postroom")]
    assert ours and not [entry for entry in ours if "f:replicas" in entry["fieldsV1"].get("f:spec", {})]  # the number is the autoscaler's


def test_with_keda_auto_is_a_scaled_object_and_the_hpa_goes(api: ApiServer, operator: Operator) -> None:
    """What KEDA then makes with our labels is left alone."""
    install_crds(api, [KEDA])
    apply(api, PLACE.platform, {**POOL, "spec": {**POOL["spec"], "drainSeconds": 77}})
    found = until("a ScaledObject", lambda: api.get(f"{SCALED}/fast-delivery"))
    assert found["spec"]["triggers"][0]["metadata"]["url"] == f"http://fast-delivery.{PLACE.platform}.svc.cluster.local:2580/queue-stats"
    until("the HPA is gone", lambda: api.get(f"{HPAS}/fast-delivery") is None)
    until("it is told", lambda: scaler(api) == {"provider": "KEDA", "name": "fast-delivery"})
    assert condition(api.get(PATH), "AutoscalerReady") == ("True", "KEDA")

    reference = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "name": "fast-delivery",
        "uid": found["metadata"]["uid"],
        "controller": True,
    }
    metadata = {"name": "fast-delivery-keda", "labels": found["metadata"]["labels"], "ownerReferences": [reference]}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fast-delivery"}
    body = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {"scaleTargetRef": target, "maxReplicas": 3},
    }
    assert api.request("POST", HPAS, body)[0] == 201
    wanted = apply(api, PLACE.platform, {**POOL, "spec": {**POOL["spec"], "drainSeconds": 78}})["metadata"]["generation"]
    until("it is reconciled again", lambda: api.get(PATH)["status"]["observedGeneration"] == wanted)
    assert api.get(f"{HPAS}/fast-delivery-keda") is not None
