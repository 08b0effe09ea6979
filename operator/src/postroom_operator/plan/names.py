"""Names, labels and annotations of what the operator makes; they are API for the chart and the services. Pure."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]  # a Kubernetes object as JSON

GROUP = "mail.postroom.dev"
VERSION = "v1alpha1"
MANAGER = "postroom-operator"
MANAGED = {"app.kubernetes.io/managed-by": MANAGER}
FINALIZER = f"{GROUP}/finalizer"

OWNER_KIND = f"{GROUP}/owner-kind"
OWNER_NAMESPACE = f"{GROUP}/owner-namespace"
OWNER_NAME = f"{GROUP}/owner-name"
OWNER_UID = f"{GROUP}/owner-uid"
DIRECTORY = f"{GROUP}/directory"  # which consumer reads the document: ingress, signer, delivery
POOL = f"{GROUP}/pool"  # the workload that a document for delivery, or a pod, belongs to
CREDENTIAL = f"{GROUP}/credential"  # a Secret of a tenant that a MailDomain refers to
RETAINED = f"{GROUP}/retained"  # outlives its MailDomain; the next one of the same domain in the same namespace takes it over
DOMAIN = f"{GROUP}/domain"  # whose it was
APPLIED = f"{GROUP}/applied"  # digest of what was applied, so that a change of the plan is seen after a restart too

DOCUMENT_TYPE = f"{GROUP}/directory"
KEY_TYPE = f"{GROUP}/dkim-key"
NAME_LIMIT = 253  # of most objects (RFC 1123 subdomain)
LABEL_LIMIT = 63  # of Services and label values


@dataclass(frozen=True, slots=True)
class Owner:
    """The resource that objects belong to."""

    kind: str
    namespace: str
    name: str
    uid: str

    @property
    def labels(self) -> dict[str, str]:
        """Found again by these even where an ownerReference is invalid, in another namespace."""
        return {**MANAGED, OWNER_KIND: self.kind, OWNER_NAMESPACE: self.namespace, OWNER_NAME: self.name, OWNER_UID: self.uid}

    @property
    def reference(self) -> Object:
        """The ownerReference for objects of the same namespace."""
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def bounded(name: str, limit: int = NAME_LIMIT) -> str:
    """The name, or its beginning and a hash of the whole when it is too long."""
    if len(name) <= limit:
        return name
    return f"{name[: limit - 9].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def workload(namespace: str, name: str, platform: str) -> str:
    """Name of a pool's delivery workload in the platform namespace; at most 52 characters, so that pods of a StatefulSet have valid labels."""
    return bounded(f"{name}-delivery" if namespace == platform else f"{namespace}-{name}-delivery", LABEL_LIMIT - 11)


def make(kind: tuple[str, str], namespace: str, name: str, owner: Owner, **body: Any) -> Object:
    """An object of (apiVersion, kind) with the owner's labels; an ownerReference where it is valid. `labels` and `annotations` are added."""
    metadata: Object = {"name": name, "namespace": namespace, "labels": {**owner.labels, **body.pop("labels", {})}}
    if annotations := body.pop("annotations", None):
        metadata["annotations"] = annotations
    if namespace == owner.namespace:
        metadata["ownerReferences"] = [owner.reference]
    return {"apiVersion": kind[0], "kind": kind[1], "metadata": metadata, **body}


def encoded(data: Mapping[str, str]) -> dict[str, str]:
    """Data of a Secret."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


def decoded(secret: Object) -> dict[str, str]:
    """The text values of a Secret; others are left out."""
    found = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value).decode()
        except ValueError:
            continue
    return found


def digest(value: Any) -> str:
    """Equal for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
