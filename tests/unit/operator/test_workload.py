"""The objects of a pool: what is in them that a cluster, a tenant or an autoscaler relies on."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postroom_operator.kube.children import made_by_another, unchangeable
from postroom_operator.plan import autoscaling, network
from postroom_operator.plan import workload as workloads
from postroom_operator.plan.conditions import Condition
from postroom_operator.plan.names import Owner, workload
from postroom_operator.plan.workload import Installation, Shape

OWNER = Owner("SendingPool", "tenant", "p", "uid-1")
PLACE = Installation(
    namespace="mail",
    release="postroom",
    image="image:1",
    service_account="postroom-delivery",
    tls_secret="postroom-delivery-tls",
    signer_target="dns:///s:7443",
    environment=(("POSTROOM_HOSTNAME", "mx.example"),),
)
SPEC: dict[str, Any] = {
    "drainSeconds": 120,
    "autoscaling": {
        "provider": "Auto",
        "minReplicas": 2,
        "maxReplicas": 9,
        "dueMessagesPerReplica": 500,
        "oldestDueSeconds": 60,
        "scaleDownStabilizationSeconds": 300,
        "fallbackReplicas": 3,
    },
}


def environment(body: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in body["spec"]["template"]["spec"]["containers"][0]["env"]}


def test_only_what_cannot_be_changed_in_place_makes_a_stateful_set_anew() -> None:
    body = workloads.workload(OWNER, PLACE, Shape("n", SPEC, "", None))
    assert body["spec"]["podManagementPolicy"] == "Parallel"
    served: dict[str, Any] = copy.deepcopy(body)
    served["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"] = "Filesystem"  # a default of the API server
    served["spec"]["template"]["spec"]["enableServiceLinks"] = True
    assert not unchangeable(served, body)
    served["spec"]["podManagementPolicy"] = "OrderedReady"
    assert unchangeable(served, body)
    assert not unchangeable({"spec": {}}, {"kind": "Service", "spec": {"selector": {"a": "b"}}})


def test_sqlite_is_one_pod_with_a_claim_that_outlives_the_pool() -> None:
    body = workloads.workload(OWNER, PLACE, Shape("n", SPEC, "", None))
    assert (body["kind"], body["spec"]["replicas"]) == ("StatefulSet", 1)
    assert body["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert environment(body)["POSTROOM_SPOOL_URL"] == "sqlite:///var/lib/postroom/spool.db"
    assert "storageClassName" not in body["spec"]["volumeClaimTemplates"][0]["spec"]


def test_postgresql_is_a_deployment_whose_uri_is_a_file_and_never_in_the_environment() -> None:
    body = workloads.workload(OWNER, PLACE, Shape("n", SPEC, "digest", 3))
    assert (body["kind"], body["spec"]["replicas"]) == ("Deployment", 3)
    assert environment(body)["POSTROOM_SPOOL_URL_FILE"] == "/etc/postroom/database/uri"
    assert "POSTROOM_SPOOL_URL" not in environment(body)
    other = workloads.workload(OWNER, PLACE, Shape("n", SPEC, "another", 3))
    assert other["spec"]["template"] != body["spec"]["template"]  # a new database restarts the pods


def test_with_an_autoscaler_the_number_is_not_ours() -> None:
    assert "replicas" not in workloads.workload(OWNER, PLACE, Shape("n", SPEC, "digest", None))["spec"]


def test_pods_meet_the_restricted_standard_and_have_time_to_drain() -> None:
    pod = workloads.workload(OWNER, PLACE, Shape("n", SPEC, "", None))["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert pod["terminationGracePeriodSeconds"] > 120 + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert {entry["name"]: entry["value"] for entry in container["env"]}["POSTROOM_DRAIN_SECONDS"] == "120"


def test_wishes_of_the_template_are_met_and_absent_ones_leave_no_field() -> None:
    wishes = {
        "resources": {"requests": {"cpu": "1"}},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "priorityClassName": "high",
        "podAnnotations": {"x": "y"},
    }
    body = workloads.workload(OWNER, PLACE, Shape("n", {**SPEC, "template": wishes}, "", None))["spec"]["template"]
    assert body["spec"]["containers"][0]["resources"] == wishes["resources"]
    assert body["metadata"]["annotations"] == {"x": "y"}
    assert all(body["spec"][name] == wishes[name] for name in ("nodeSelector", "tolerations", "priorityClassName"))
    plain = workloads.workload(OWNER, PLACE, Shape("n", SPEC, "", None))["spec"]["template"]
    assert not {"nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets"} & plain["spec"].keys()
    assert "annotations" not in plain["metadata"]


def test_storage_and_pull_secrets_of_the_installation() -> None:
    place = Installation("mail", "r", "i", "sa", "tls", "s", storage_class="fast", storage_size="1Gi", pull_secrets=("reg",))
    body = workloads.workload(OWNER, place, Shape("n", SPEC, "", None))["spec"]
    claim = body["volumeClaimTemplates"][0]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "1Gi")
    assert body["template"]["spec"]["imagePullSecrets"] == [{"name": "reg"}]


def test_the_service_is_headless_and_the_budget_counts_the_pools_own_pods() -> None:
    service = workloads.service(OWNER, PLACE, "n")
    assert service["spec"]["clusterIP"] == "None"
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {"grpc": 7443, "http": 2580}
    budget = workloads.disruption_budget(OWNER, PLACE, "n", {"disruptionBudget": {"maxUnavailable": 2}})
    assert budget["spec"]["maxUnavailable"] == 2
    assert budget["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    policy = network.policy(OWNER, PLACE, "n")
    assert policy["spec"]["ingress"][0]["from"] == [{"podSelector": {}}]  # gRPC from this namespace alone


@pytest.mark.parametrize(
    ("wanted", "embedded", "keda", "provider", "reason"),
    [
        ("Auto", False, True, "KEDA", "KEDA"),
        ("KEDA", False, True, "KEDA", "KEDA"),
        ("Auto", False, False, "HPA", "HPA"),
        ("HPA", False, True, "HPA", "HPA"),
        ("KEDA", False, False, "None", "ProviderAbsent"),
        ("None", False, True, "None", "Off"),
        ("Auto", True, True, "None", "NotScalable"),
    ],
)
def test_who_scales(wanted: str, embedded: bool, keda: bool, provider: str, reason: str) -> None:
    choice = autoscaling.choose({"autoscaling": {**SPEC["autoscaling"], "provider": wanted}}, embedded=embedded, keda=keda)
    assert (choice.provider, choice.condition.reason) == (provider, reason)


def test_keda_asks_for_due_mail_and_its_age_and_falls_back_to_more_not_to_less() -> None:
    (body,) = autoscaling.autoscaler(OWNER, PLACE, "n", SPEC, "KEDA")
    due, oldest = body["spec"]["triggers"]
    assert due["metadata"] == {
        "url": "http://n.mail.svc.cluster.local:2580/queue-stats",
        "format": "prometheus",
        "valueLocation": "postroom_due_messages",
        "targetValue": "500",
    }
    assert (due["metricType"], oldest["metricType"]) == ("AverageValue", "Value")
    assert (oldest["metadata"]["valueLocation"], oldest["metadata"]["targetValue"]) == ("postroom_oldest_due_seconds", "60")
    assert body["spec"]["fallback"] == {"failureThreshold": 3, "replicas": 3, "behavior": "currentReplicasIfHigher"}
    assert (body["spec"]["minReplicaCount"], body["spec"]["maxReplicaCount"]) == (2, 9)
    (hpa,) = autoscaling.autoscaler(OWNER, PLACE, "n", SPEC, "HPA")
    assert hpa["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "n"}
    assert hpa["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert autoscaling.autoscaler(OWNER, PLACE, "n", SPEC, "None") == []


def test_there_is_always_a_pod_that_answers_keda() -> None:
    spec = {"autoscaling": {**SPEC["autoscaling"], "provider": "KEDA", "minReplicas": 0}}
    (body,) = autoscaling.autoscaler(OWNER, PLACE, "n", spec, "KEDA")
    assert body["spec"]["minReplicaCount"] == 1
    assert "minReplicas 0 is taken as 1" in autoscaling.choose(spec, embedded=False, keda=True).condition.message


def _state(kind: str, status: str, reason: str = "R", message: str = "why") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("provider", "conditions", "wanted"),
    [
        ("KEDA", [], "NotReconciled"),
        ("KEDA", [_state("Ready", "True")], "KEDA"),
        ("KEDA", [_state("Ready", "False")], "ScaledObjectNotReady"),
        ("KEDA", [_state("Ready", "True"), _state("Fallback", "True")], "Fallback"),
        ("KEDA", [_state("Ready", "True"), _state("HPAActive", "False", "HPAMetricsUnavailable")], "MetricsUnavailable"),
        ("KEDA", [_state("Ready", "True"), _state("HPAActive", "False", "ScalingDisabled")], "KEDA"),
        ("HPA", [], "HPA"),
        ("HPA", [_state("AbleToScale", "True"), _state("ScalingActive", "True")], "HPA"),
        ("HPA", [_state("AbleToScale", "True"), _state("ScalingActive", "False", "FailedGetResourceMetric")], "FailedGetResourceMetric"),
        ("HPA", [_state("AbleToScale", "False", "FailedGetScale")], "FailedGetScale"),
    ],
)
def test_what_ails_the_autoscaler_is_said_after_its_first_minutes(provider: Any, conditions: list[dict[str, str]], wanted: str) -> None:
    choice = autoscaling.Choice(provider, Condition("AutoscalerReady", "True", provider))
    made = datetime(2026, 1, 1, tzinfo=UTC)
    found = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": conditions}}
    said = autoscaling.observe(choice, found, made + timedelta(minutes=10))
    assert (said.reason, said.status) == (wanted, "True" if wanted == provider else "False")
    assert autoscaling.observe(choice, found, made + timedelta(minutes=1)) == choice.condition
    assert autoscaling.observe(choice, None, made) == choice.condition


def test_what_keda_makes_of_our_labels_is_not_ours_to_remove() -> None:
    copied = {"metadata": {"ownerReferences": [{"controller": True, "uid": "the ScaledObject's"}]}}
    assert made_by_another(copied, "uid-1")
    assert not made_by_another({"metadata": {"ownerReferences": [{"controller": True, "uid": "uid-1"}]}}, "uid-1")
    assert not made_by_another({"metadata": {}}, "uid-1")


def test_objects_of_another_namespace_have_labels_and_no_owner_reference() -> None:
    foreign = workloads.service(OWNER, PLACE, "n")["metadata"]
    assert "ownerReferences" not in foreign
    assert foreign["labels"]["mail.postroom.dev/owner-uid"] == "uid-1"
    own = workloads.service(Owner("SendingPool", "mail", "p", "uid-1"), PLACE, "n")["metadata"]
    assert own["ownerReferences"][0]["uid"] == "uid-1"


def test_workloads_are_named_after_the_pool_and_stay_labels() -> None:
    assert workload("mail", "p", "mail") == "p-delivery"
    assert workload("tenant", "p", "mail") == "tenant-p-delivery"
    long = workload("t" * 63, "p" * 40, "mail")
    assert len(long) <= 52 and long != workload("t" * 63, "p" * 39, "mail")
