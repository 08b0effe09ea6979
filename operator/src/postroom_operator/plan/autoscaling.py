"""Who says how many delivery pods a pool has, and whether it works. Pure.

KEDA asks delivery itself for the messages that are due now and permitted by limits, per replica, and for how long the first of them has been
waiting. Deferred and throttled mail never scales anything up: more pods would not send it sooner. Where KEDA is not served, Auto is an HPA on CPU.
With SQLite there is no autoscaler, because one process owns the spool.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from postroom_operator.plan.conditions import Condition, moment
from postroom_operator.plan.names import Object, Owner, make
from postroom_operator.plan.workload import HTTP_PORT, Installation, selector

Provider = Literal["KEDA", "HPA", "None"]
# Delivery waits for the network most of its time; a pod that computes for 70 % of its request is a busy one.
CPU_PERCENT = 70
# One pod in ten a minute: a drain takes minutes, and a wave of mail comes back.
SCALE_DOWN_PERCENT = 10
STATS_PATH = "/queue-stats"
# A controller looks within seconds, but a new pod has no CPU measure for a minute or two: before that nothing is wrong.
PATIENCE = timedelta(minutes=3)
KIND = {"KEDA": "ScaledObject", "HPA": "HorizontalPodAutoscaler"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider in force and what is said about it before it is looked at."""

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
    if wanted == "KEDA" and not keda:
        return Choice(
            "None", Condition("AutoscalerReady", "False", "ProviderAbsent", "KEDA's ScaledObject is not served here; install KEDA or use HPA")
        )
    provider: Provider = "KEDA" if keda and wanted in ("Auto", "KEDA") else "HPA"
    told = (
        "minReplicas 0 is taken as 1: mail is accepted and the metric is answered by delivery's pods alone"
        if not spec["autoscaling"]["minReplicas"]
        else ""
    )
    return Choice(provider, Condition("AutoscalerReady", "True", provider, told))


def observe(choice: Choice, found: Object | None, now: datetime) -> Condition:
    """What the autoscaler's own status says; `found` is its object as it is, None before it is there."""
    if choice.provider == "None" or found is None:
        return choice.condition
    conditions = {entry["type"]: entry for entry in found.get("status", {}).get("conditions") or []}
    failing = _failing_keda(conditions) if choice.provider == "KEDA" else _failing_hpa(conditions)
    if failing is None or now - moment(found["metadata"]["creationTimestamp"]) < PATIENCE:
        return choice.condition
    return Condition("AutoscalerReady", "False", *failing)


def _failing_keda(conditions: dict[str, Object]) -> tuple[str, str] | None:
    """Reason and message, None when it scales."""
    if not conditions:
        return "NotReconciled", "no controller has looked at the ScaledObject: is KEDA running?"
    if conditions.get("Ready", {}).get("status") == "False":
        return "ScaledObjectNotReady", conditions["Ready"].get("message", "")
    if conditions.get("Fallback", {}).get("status") == "True":
        return "Fallback", "KEDA gets no answer from delivery and keeps fallbackReplicas; see the events of the ScaledObject"
    if conditions.get("HPAActive", {}).get("status") == "False" and conditions["HPAActive"].get("reason") != "ScalingDisabled":
        return "MetricsUnavailable", conditions["HPAActive"].get("message", "")
    return None


def _failing_hpa(conditions: dict[str, Object]) -> tuple[str, str] | None:
    for kind in ("AbleToScale", "ScalingActive"):
        found = conditions.get(kind, {})
        if found.get("status") == "False" and found.get("reason") != "ScalingDisabled":
            return found.get("reason") or kind, found.get("message", "")
    return None


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
        "minReplicaCount": max(1, wanted["minReplicas"]),
        "maxReplicaCount": wanted["maxReplicas"],
        "pollingInterval": 15,
        "fallback": {"failureThreshold": 3, "replicas": wanted["fallbackReplicas"], "behavior": "currentReplicasIfHigher"},
        "advanced": {"horizontalPodAutoscalerConfig": {"name": f"{name}-keda", "behavior": _behaviour(wanted)}},
        "triggers": [
            _trigger(url, "postroom_due_messages", str(wanted["dueMessagesPerReplica"]), "AverageValue"),
            _trigger(url, "postroom_oldest_due_seconds", str(wanted["oldestDueSeconds"]), "Value"),
        ],
    }
    return make(("keda.sh/v1alpha1", "ScaledObject"), place.namespace, name, owner, labels=selector(name), spec=spec)


def _trigger(url: str, metric: str, target: str, how: str) -> Object:
    metadata = {"url": url, "format": "prometheus", "valueLocation": metric, "targetValue": target}
    return {"type": "metrics-api", "name": metric.replace("_", "-"), "metricType": how, "useCachedMetrics": True, "metadata": metadata}
