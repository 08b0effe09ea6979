"""What one SendingPool becomes: its objects, conditions and status. Pure: gathered facts in, data out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from postroom_core.documents import Pool
from postroom_operator.plan import autoscaling, network
from postroom_operator.plan import workload as workloads
from postroom_operator.plan.autoscaling import Choice
from postroom_operator.plan.conditions import Condition
from postroom_operator.plan.directory import document_secret
from postroom_operator.plan.findings import Problem
from postroom_operator.plan.names import Object, Owner, digest, encoded, make
from postroom_operator.plan.workload import Installation, Shape

NEEDED = ("Accepted", "ConfigSynced", "AutoscalerReady", "WorkloadAvailable")
DATABASE_KEY = "uri"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was gathered about a SendingPool. `uri` is its database's, "" for SQLite, None when the Secret cannot be used."""

    owner: Owner
    name: str  # of the workload
    spec: Object
    document: Pool
    problems: tuple[Problem, ...]
    uri: str | None
    why_no_uri: str
    choice: Choice
    domains: int
    workload: Object | None  # as it is
    autoscaler: Object | None  # as it is
    now: datetime

    @property
    def kind(self) -> Literal["Deployment", "StatefulSet"]:
        return "Deployment" if self.uri else "StatefulSet"


def wanted(facts: Facts, place: Installation) -> list[Object]:
    """The pool's objects. While its database is not known nothing is changed, so that mail in the old one goes on."""
    owner, name = facts.owner, facts.name
    if facts.uri is None:
        return []
    replicas = facts.spec["replicas"] if facts.choice.provider == "None" else None
    shape = Shape(name, facts.spec, digest(facts.uri) if facts.uri else "", replicas)
    found = [
        document_secret(owner, place.namespace, "delivery", facts.document, pool=name),
        workloads.service(owner, place, name),
        workloads.disruption_budget(owner, place, name, facts.spec),
        network.policy(owner, place, name),
        workloads.workload(owner, place, shape),
        *autoscaling.autoscaler(owner, place, name, facts.spec, facts.choice.provider),
    ]
    if facts.uri:
        secret = make(("v1", "Secret"), place.namespace, f"{name}-database", owner, type="Opaque")
        secret["data"] = encoded({DATABASE_KEY: facts.uri})
        found.append(secret)
    return found


def observe(facts: Facts) -> list[Condition]:
    """The conditions, without Ready."""
    scaling = autoscaling.observe(facts.choice, facts.autoscaler, facts.now)
    return [_accepted(facts), _synced(facts), scaling, _available(facts), _scalable(facts)]


def _accepted(facts: Facts) -> Condition:
    if facts.uri is None:
        return Condition("Accepted", "False", "DatabaseUnknown", facts.why_no_uri)
    return Condition("Accepted", "True", "Accepted")


def _synced(facts: Facts) -> Condition:
    if facts.problems:
        return Condition("ConfigSynced", "False", "Invalid", "; ".join(map(str, facts.problems)))
    return Condition("ConfigSynced", "True", "Synced")


def _scalable(facts: Facts) -> Condition:
    if facts.uri == "":
        return Condition("Scalable", "False", "EmbeddedSpool", "SQLite on a volume: one pod; name a PostgreSQL database by spec.spool.secretRef")
    return Condition("Scalable", "True" if facts.uri else "Unknown", "Database" if facts.uri else "DatabaseUnknown")


def _available(facts: Facts) -> Condition:
    status = (facts.workload or {}).get("status", {})
    ready, wanted_replicas = status.get("readyReplicas", 0), status.get("replicas", 0)
    if facts.workload is None or status.get("observedGeneration", 0) < facts.workload["metadata"].get("generation", 0):
        return Condition("WorkloadAvailable", "Unknown", "Progressing", "the workload's controller has not looked yet")
    if ready:
        return Condition("WorkloadAvailable", "True", "Available")
    return Condition("WorkloadAvailable", "False", "NoReadyPod", f"0 of {wanted_replicas} pods are ready; see the pods of {facts.name}")


def status(facts: Facts) -> Object:
    """Status but for conditions and observedGeneration."""
    now = (facts.workload or {}).get("status", {})
    labels = workloads.selector(facts.name)
    found: Object = {
        "replicas": now.get("replicas", 0),
        "readyReplicas": now.get("readyReplicas", 0),
        "selector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "workload": facts.name,
        "domainCount": facts.domains,
        "autoscaler": {"provider": facts.choice.provider, **({"name": facts.name} if facts.choice.provider != "None" else {})},
    }
    return found


def handover(known: Object | None, provider: str) -> bool:
    """Whether the number of replicas must be kept while its owner changes: without it, leaving the field out resets it to one."""
    if known is None or provider == "None" or known["kind"] != "Deployment":
        return False
    return bool(known["metadata"].get("annotations", {}).get(workloads.REPLICAS) == "pool")
