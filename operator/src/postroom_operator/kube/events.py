"""Events: one for each transition of a condition, so that `kubectl describe` tells the story. Never a secret in them; losing one is no fault."""

import structlog

from postroom_core.errors import PostroomError
from postroom_operator.kube.api import Api
from postroom_operator.kube.kinds import EVENT
from postroom_operator.plan.names import GROUP, VERSION, Object, Owner

log = structlog.get_logger(__name__)
REPORTER = f"{GROUP}/operator"


async def tell(api: Api, owner: Owner, instance: str, condition: Object) -> None:
    """One Event about one condition."""
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{owner.name[:40]}-", "namespace": owner.namespace},
        "eventTime": condition["lastTransitionTime"].replace("Z", ".000000Z"),
        "reportingController": REPORTER,
        "reportingInstance": instance[:128],
        "action": condition["type"],
        "reason": condition["reason"],
        "type": "Normal" if condition["status"] == "True" or condition["type"] == "DKIMRotating" else "Warning",
        "note": f"{condition['type']} is {condition['status']}. {condition['message']}"[:1000],
        "regarding": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": owner.kind,
            "namespace": owner.namespace,
            "name": owner.name,
            "uid": owner.uid,
        },
    }
    try:
        await api.create(EVENT, body)
    except PostroomError as error:
        log.info("an Event was not written", reason=str(error))
