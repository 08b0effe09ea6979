"""Who says how many delivery pods a pool has. Pure.

KEDA asks delivery itself for the messages that are due now and permitted by limits, per replica, and for the age of the oldest of them. Deferred
and throttled mail never scales anything up: more pods would not send it sooner. Delivery does not serve that metric yet, so Auto is an HPA on CPU
and KEDA says what is missing. With SQLite there is no autoscaler, because one process owns the spool.
"""

from dataclasses import dataclass
from typing import Literal

from postroom_operator.plan.conditions import Condition
from postroom_operator.plan.names import Object, Owner, make
from postroom_operator.plan.workload import HTTP_PORT, Installation, selector

Provider = Literal["KEDA", "HPA", "None"]
# Delivery waits for the network most of its time; a pod that computes for 70 % of its request is a busy one.
CPU_PERCENT = 70
# One pod in ten a minute: a drain takes minutes, and a wave of mail comes back.
SCALE_DOWN_PERCENT = 10
STATS_PATH = "/queue-stats"


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider in force and what is said about it."""

    provider: Provider
    condition: Condition


def choose(spec: Object, *, embedded: bool, keda: bool) -> Choice:
    """`embedded`: the spool is SQLite; `keda`: its API is served."""
    wanted = spec["autoscaling"]["provider"]
    if embedded:
        told = "the spool is SQLite on a volume: one pod; name a PostgreSQL database by spec.spool.secretRef to scale"
        return Choice("None", Condition("AutoscalerReady", "True", "NotScalable", told))
    if wanted == "None":
        return Choice("None", Condition("AutoscalerReady", "True", "Off"))
    if keda and wanted == "KEDA":
        told = "delivery does not serve the metric yet, so KEDA keeps fallbackReplicas; use HPA"
        return Choice("KEDA", Condition("AutoscalerReady", "False", "MetricAbsent", told))
    if wanted == "KEDA":
        return Choice(
            "None", Condition("AutoscalerReady", "False", "ProviderAbsent", "KEDA's ScaledObject is not served here; install KEDA or use HPA")
        )
    return Choice("HPA", Condition("AutoscalerReady", "True", "HPA"))


def autoscaler(owner: Owner, place: Installation, name: str, spec: Object, provider: Provider) -> list[Object]:
    """The ScaledObject or HorizontalPodAutoscaler, or nothing."""
    match provider:
        case "KEDA":
            return [_scaled_object(owner, place, name, spec["autoscaling"])]
        case "HPA":
            return [_hpa(owner, place, name, spec["autoscaling"])]
        case "None":
            return []


def _behaviour(wanted: Object) -> Object:
    slow = {"type": "Percent", "value": SCALE_DOWN_PERCENT, "periodSeconds": 60}
    one = {"type": "Pods", "value": 1, "periodSeconds": 60}
    return {"scaleDown": {"stabilizationWindowSeconds": wanted["scaleDownStabilizationSeconds"], "selectPolicy": "Max", "policies": [slow, one]}}


def _hpa(owner: Owner, place: Installation, name: str, wanted: Object) -> Object:
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT}}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": wanted["minReplicas"],
        "maxReplicas": wanted["maxReplicas"],
        "metrics": [metric],
        "behavior": _behaviour(wanted),
    }
    return make(("autoscaling/v2", "HorizontalPodAutoscaler"), place.namespace, name, owner, labels=selector(name), spec=spec)


def _scaled_object(owner: Owner, place: Installation, name: str, wanted: Object) -> Object:
    # Every pod answers for the whole pool, so one answer is enough.
    url = f"http://{name}.{place.namespace}.svc.cluster.local:{HTTP_PORT}{STATS_PATH}"
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicaCount": wanted["minReplicas"],
        "maxReplicaCount": wanted["maxReplicas"],
        "pollingInterval": 15,
        "fallback": {"failureThreshold": 3, "replicas": wanted["fallbackReplicas"], "behavior": "currentReplicasIfHigher"},
        "advanced": {"horizontalPodAutoscalerConfig": {"name": f"{name}-keda", "behavior": _behaviour(wanted)}},
        "triggers": [
            _trigger(url, "due_messages", str(wanted["dueMessagesPerReplica"]), "AverageValue"),
            _trigger(url, "oldest_due_seconds", str(wanted["oldestDueSeconds"]), "Value"),
        ],
    }
    return make(("keda.sh/v1alpha1", "ScaledObject"), place.namespace, name, owner, labels=selector(name), spec=spec)


def _trigger(url: str, location: str, target: str, how: str) -> Object:
    metadata = {"url": url, "valueLocation": location, "targetValue": target}
    return {"type": "metrics-api", "name": location.replace("_", "-"), "metricType": how, "useCachedMetrics": True, "metadata": metadata}
