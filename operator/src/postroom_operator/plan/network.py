"""Who may speak with a pool's pods, and with whom they may speak. Pure."""

from postroom_operator.plan.names import Object, Owner, make
from postroom_operator.plan.workload import GRPC_PORT, HTTP_PORT, Installation, selector


def policy(owner: Owner, place: Installation, name: str) -> Object:
    """In: gRPC from this namespace, metrics and the autoscaler's question from the cluster. Out: mail goes to the world at ports that a pool names.

    Outgoing traffic is not limited here: smart hosts, databases and test sinks have ports of their own, and private addresses of receivers are
    refused where they are dialled.
    """
    spec = {
        "podSelector": {"matchLabels": selector(name)},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {}}], "ports": [{"port": GRPC_PORT, "protocol": "TCP"}]},
            {"from": [{"namespaceSelector": {}}], "ports": [{"port": HTTP_PORT, "protocol": "TCP"}]},
        ],
    }
    return make(("networking.k8s.io/v1", "NetworkPolicy"), place.namespace, name, owner, labels=selector(name), spec=spec)
