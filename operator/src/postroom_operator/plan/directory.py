"""Directory documents as Secrets: one each, with the labels that its readers select. Pure."""

from typing import Literal

from postroom_core.documents import ADAPTER, AnyDocument, Certificate
from postroom_operator.plan.names import DIRECTORY, DOCUMENT_TYPE, POOL, Object, Owner, bounded, decoded, encoded, make

Consumer = Literal["ingress", "signer", "delivery"]
STATE = "state"  # the operator's own, beside the document
DOCUMENT = "document"


def secret_name(document: AnyDocument) -> str:
    """By kind and name; a domain's is the same whoever owns it, so two cannot be in force."""
    return bounded(f"{document.kind}-{document.name.replace('/', '.').lower()}")


def document_secret(owner: Owner, namespace: str, consumer: Consumer, document: AnyDocument, *, pool: str = "", state: str = "") -> Object:
    """`pool` is the workload that a document for delivery is for."""
    labels = {DIRECTORY: consumer, **({POOL: pool} if pool else {})}
    body = make(("v1", "Secret"), namespace, secret_name(document), owner, labels=labels, type=DOCUMENT_TYPE)
    data = {DOCUMENT: document.model_dump_json(), **({STATE: state} if state else {})}
    body["data"] = encoded(data)
    return body


def certificate_of(secret: Object | None) -> Certificate | None:
    """The Certificate document in a directory Secret; None when there is no Secret, or no such document in it."""
    try:
        document = ADAPTER.validate_json(decoded(secret)[DOCUMENT]) if secret is not None else None
    except (ValueError, KeyError):
        return None
    return document if isinstance(document, Certificate) else None
