"""The workload of a SendingPool: a Deployment when the spool is PostgreSQL, a StatefulSet of one pod with a volume when it is SQLite. Pure.

Pods meet the restricted Pod Security Standard. With an autoscaler `replicas` is left out: it is the autoscaler's field.
"""

from dataclasses import dataclass
from typing import Any

from postroom_operator.plan.names import DIRECTORY, GROUP, POOL, Object, Owner, make

GRPC_PORT, HTTP_PORT = 7443, 2580
TLS_FOLDER, SPOOL_FOLDER, DATABASE_FOLDER = "/etc/postroom/tls", "/var/lib/postroom", "/etc/postroom/database"
USER = 10001  # the images' own
# The endpoint leaves Services and load balancers before the process hears of its end.
PRE_STOP_SECONDS = 5
# Stopping after the drain, and what the kubelet adds.
SLACK_SECONDS = 15
REPLICAS = f"{GROUP}/replicas"  # who owns the number: "pool" is spec.replicas, else an autoscaler
COMPONENT = {"app.kubernetes.io/name": "postroom", "app.kubernetes.io/component": "delivery"}


@dataclass(frozen=True, slots=True)
class Installation:
    """What all pools of an installation share."""

    namespace: str
    release: str
    image: str
    service_account: str
    tls_secret: str  # for mTLS between the services
    signer_target: str  # delivery has its DSNs signed
    environment: tuple[tuple[str, str], ...] = ()
    storage_class: str = ""
    storage_size: str = "10Gi"
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a pool decides its workload. `database` is the digest of the database's URI, "" for SQLite."""

    name: str
    spec: Object
    database: str
    replicas: int | None  # None: an autoscaler owns the number


def selector(name: str) -> dict[str, str]:
    """Labels of a pool's pods; a workload's selector can never change."""
    return {**COMPONENT, "app.kubernetes.io/instance": name}


def workload(owner: Owner, place: Installation, shape: Shape) -> Object:
    """The Deployment or StatefulSet."""
    spec: Object = {"revisionHistoryLimit": 3, "selector": {"matchLabels": selector(shape.name)}, "template": _template(place, shape)}
    if shape.database:
        ours = {}
        if shape.replicas is not None:
            spec["replicas"] = shape.replicas
            ours = {REPLICAS: "pool"}
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        return make(("apps/v1", "Deployment"), place.namespace, shape.name, owner, labels=selector(shape.name), annotations=ours, spec=spec)
    storage: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": place.storage_size}}}
    if place.storage_class:
        storage["storageClassName"] = place.storage_class
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "spool", "labels": selector(shape.name)}, "spec": storage}
    spec |= {"replicas": 1, "serviceName": shape.name, "volumeClaimTemplates": [claim]}
    # With OrderedReady a pod that never becomes ready is not replaced, not even when the template is whole again.
    spec["podManagementPolicy"] = "Parallel"
    # Accepted mail outlives the pool's object: the claim stays when the pool is deleted.
    spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    return make(("apps/v1", "StatefulSet"), place.namespace, shape.name, owner, labels=selector(shape.name), spec=spec)


def service(owner: Owner, place: Installation, name: str) -> Object:
    """Headless: clients balance over the pods themselves. A pod that is not ready gets no new mail."""
    ports = [
        {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"},
        {"name": "http", "port": HTTP_PORT, "targetPort": "http", "protocol": "TCP"},
    ]
    spec = {"clusterIP": "None", "selector": selector(name), "ports": ports}
    return make(("v1", "Service"), place.namespace, name, owner, labels=selector(name), spec=spec)


def disruption_budget(owner: Owner, place: Installation, name: str, spec: Object) -> Object:
    """How many pods may be evicted at once."""
    wanted = spec.get("disruptionBudget", {}).get("maxUnavailable", 1)
    body = {"maxUnavailable": wanted, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": selector(name)}}
    return make(("policy/v1", "PodDisruptionBudget"), place.namespace, name, owner, labels=selector(name), spec=body)


def _template(place: Installation, shape: Shape) -> Object:
    wishes = shape.spec.get("template", {})
    pod: Object = {
        "serviceAccountName": place.service_account,
        "automountServiceAccountToken": True,  # the directory is read from the API
        "enableServiceLinks": False,  # their variables would be taken for misspelt settings
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + shape.spec["drainSeconds"] + SLACK_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(place, shape, wishes)],
        "volumes": _volumes(place, shape),
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": selector(shape.name)}}
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
    }
    if place.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in place.pull_secrets]
    pod |= {name: wishes[name] for name in ("nodeSelector", "tolerations", "priorityClassName") if wishes.get(name)}
    metadata: Object = {"labels": {**selector(shape.name), POOL: shape.name}}
    # A changed database restarts the pods: they read the file at their start only.
    annotations = {**wishes.get("podAnnotations", {}), **({"mail.postroom.dev/database": shape.database} if shape.database else {})}
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": pod}


def _container(place: Installation, shape: Shape, wishes: Object) -> Object:
    mounts = [{"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    if shape.database:
        mounts.append({"name": "database", "mountPath": DATABASE_FOLDER, "readOnly": True})
    else:
        mounts.append({"name": "spool", "mountPath": SPOOL_FOLDER})
    found: Object = {
        "name": "delivery",
        "image": place.image,
        "imagePullPolicy": place.pull_policy,
        "env": _environment(place, shape),
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    if resources := wishes.get("resources"):
        found["resources"] = resources
    return found


def _environment(place: Installation, shape: Shape) -> list[Object]:
    selects = f"{DIRECTORY}=delivery,{POOL}={shape.name}"
    values = {
        **dict(place.environment),
        "POSTROOM_DIRECTORY": f"kubernetes:{place.namespace}?{selects}",
        "POSTROOM_LISTEN": f"[::]:{GRPC_PORT}",
        "POSTROOM_HTTP": f"0.0.0.0:{HTTP_PORT}",
        "POSTROOM_GRPC_TLS": TLS_FOLDER,
        "POSTROOM_SIGNER_TARGET": place.signer_target,
        "POSTROOM_DRAIN_SECONDS": str(shape.spec["drainSeconds"]),
    }
    if shape.database:
        values["POSTROOM_SPOOL_URL_FILE"] = f"{DATABASE_FOLDER}/uri"
    else:
        values["POSTROOM_SPOOL_URL"] = f"sqlite://{SPOOL_FOLDER}/spool.db"
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def _volumes(place: Installation, shape: Shape) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": "tls", "secret": {"secretName": place.tls_secret, "defaultMode": 0o440}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if shape.database:
        found.append({"name": "database", "secret": {"secretName": f"{shape.name}-database", "defaultMode": 0o440}})
    return found
