"""The operator in a cluster: what hands change is repaired, nothing is written while nothing changes, a leader that dies or goes is followed.

E2E_QUIET is how many seconds of quiet are watched: 300 is the promise, 30 the default of a run that shall end today.
"""

import functools
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest
from e2e.installation import DOMAIN, Installation
from e2e.world import PATIENCE, READY, RESTORED, Object, get, items, kubectl, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
QUIET = float(os.environ.get("E2E_QUIET", "30"))
TAKEOVER, HANDOVER = 20 * PATIENCE, 3 * PATIENCE
OURS = "app.kubernetes.io/managed-by=postroom-operator"
KINDS = ("secret", "service", "poddisruptionbudget", "networkpolicy", "statefulset", "deployment")
FOREIGN = "mesh.example/inject"
# A hand's edit of something that the plan says, by kind.
EDITS: dict[str, Object] = {
    "service": {"spec": {"selector": {"app.kubernetes.io/instance": "nonsense"}}},
    "poddisruptionbudget": {"spec": {"maxUnavailable": 0}},
    "networkpolicy": {"spec": {"podSelector": {"matchLabels": {"app.kubernetes.io/instance": "nonsense"}}}},
    "statefulset": {"spec": {"template": {"spec": {"enableServiceLinks": True}}}},
}


def children(postroom: Installation) -> list[Object]:
    """What the operator made and would make again as it was; a deleted DKIM key or CA is replaced, never restored."""
    found = [item for kind in KINDS for place in (postroom.namespace, postroom.keys) for item in items(kind, place, OURS)]
    return [item for item in found if item.get("type") != "mail.postroom.dev/dkim-key" and item["metadata"]["name"] != "postroom-ca"]


def identity(item: Object) -> tuple[str, str, str]:
    return item["kind"].lower(), item["metadata"]["name"], item["metadata"]["namespace"]


def test_every_child_that_somebody_deletes_is_back_within_its_time(postroom: Installation) -> None:
    found = children(postroom)
    assert {kind for kind, _, _ in map(identity, found)} >= {"secret", "service", "poddisruptionbudget", "networkpolicy", "statefulset"}
    slowest = 0.0
    for item in found:
        kind, name, namespace = identity(item)
        kubectl("-n", namespace, "delete", kind, name, "--wait=false")
        began = time.monotonic()
        _restored(item, began)
        slowest = max(slowest, time.monotonic() - began)
    postroom.measured[f"the slowest of {len(found)} deleted children is back"] = round(slowest, 1)
    until("every pod is ready", lambda: postroom.ready("operator", "ingress", "signer", "delivery"), READY)


def _restored(item: Object, began: float) -> None:
    kind, name, namespace = identity(item)

    def another() -> bool:
        now = get(kind, name, namespace)
        return bool(now) and bool(now["metadata"]["uid"] != item["metadata"]["uid"])

    until(f"{kind} {name} is back", another, RESTORED - (time.monotonic() - began))


def test_every_field_of_ours_that_somebody_edits_is_back_and_fields_of_others_stay(postroom: Installation) -> None:
    edited = [item for item in children(postroom) if identity(item)[0] in EDITS or "document" in item.get("data", {})]
    # What is in no other place cannot come back as it was: the listeners' self-signed certificate is made anew.
    edited = [item for item in edited if item["metadata"]["name"] != "certificate-default"]
    for item in edited:
        kind, name, namespace = identity(item)
        change = EDITS.get(kind, {"data": {"document": "bm9uc2Vuc2U="}})
        patch = {**change, "metadata": {"annotations": {FOREIGN: "yes"}}}
        kubectl("-n", namespace, "patch", kind, name, "--type=merge", "--patch-file=/dev/stdin", stdin=json.dumps(patch))
        until(f"{kind} {name} is as it was", functools.partial(_same, item), RESTORED)
    assert len(edited) >= 8
    # Pods that were made of the edited template are broken, and must not stay.
    until("every pod is ready", lambda: postroom.ready("operator", "ingress", "signer", "delivery"), READY)
    for item in edited:
        assert get(*identity(item))["metadata"]["annotations"].get(FOREIGN) == "yes"


def _same(before: Object) -> bool:
    now = get(*identity(before))
    return all(now.get(part) == before.get(part) for part in ("spec", "data"))


def versions(postroom: Installation) -> dict[tuple[str, str, str], str]:
    """Of everything that is ours, to tell whether anybody wrote to it."""
    found = [item for kind in KINDS for place in (postroom.namespace, postroom.keys) for item in items(kind, place, OURS)]
    found += [item for kind in ("maildomain", "sendingpool") for item in items(kind, postroom.namespace)]
    return {identity(item): item["metadata"]["resourceVersion"] for item in found}


def test_nothing_is_written_while_nothing_changes(postroom: Installation) -> None:
    """Neither by the operator's own count, which leaves out its Lease, nor by the versions of all that it looks after."""

    def settled() -> bool:
        before = versions(postroom), writes(postroom)
        time.sleep(5)
        return (versions(postroom), writes(postroom)) == before

    until("it is quiet", settled, READY)
    before = versions(postroom), writes(postroom)
    time.sleep(QUIET)
    assert (versions(postroom), writes(postroom)) == before


def writes(postroom: Installation) -> float:
    """Requests of all operators that wrote something but Leases."""
    total = 0.0
    for pod in postroom.pods("operator"):
        text = kubectl("get", "--raw", f"/api/v1/namespaces/{postroom.namespace}/pods/{pod['metadata']['name']}:2580/proxy/metrics")
        lines = [line for line in text.splitlines() if line.startswith("postroom_operator_writes_total") and 'kind="Lease"' not in line]
        total += sum(float(line.rpartition(" ")[2]) for line in lines)
    return total


def leader(postroom: Installation) -> str:
    """Name of the pod that leads; "" while nobody does."""
    holder = get("lease", "postroom-operator", postroom.namespace)["spec"].get("holderIdentity", "")
    return next((pod["metadata"]["name"] for pod in postroom.pods("operator") if holder.startswith(pod["metadata"]["name"])), "")


def followed(postroom: Installation, old: str, seconds: float) -> float:
    """Seconds until another leads."""
    began = time.monotonic()
    until("another leads", lambda: leader(postroom) not in ("", old), seconds)
    return time.monotonic() - began


@pytest.fixture
def whole(postroom: Installation) -> Iterator[None]:
    """Two operators before and after."""
    until("two operators", lambda: len(postroom.pods("operator")) == 2 and postroom.ready("operator"), READY)
    yield
    until("two operators", lambda: len(postroom.pods("operator")) == 2 and postroom.ready("operator"), READY)


@pytest.mark.usefixtures("whole")
def test_a_leader_that_is_asked_to_go_hands_over_at_once(postroom: Installation) -> None:
    old = leader(postroom)
    kubectl("-n", postroom.namespace, "delete", "pod", old, "--wait=false")
    postroom.measured["a leader that is asked to go is followed"] = round(followed(postroom, old, HANDOVER), 1)


@pytest.mark.usefixtures("whole")
def test_a_leader_killed_in_a_rotation_is_followed_and_one_key_of_each_kind_is_made(postroom: Installation) -> None:
    """Killed outright, from outside of its container, as soon as the first new key is there."""
    before = keys(postroom)
    assert sorted(before.values()) == ["Ed25519", "RSA2048"]
    old = leader(postroom)
    [process] = processes(postroom, old)
    postroom.domain(dkim={"rotation": {"trigger": "e2e"}})
    until("a new key", lambda: len(keys(postroom)) == 3, READY)
    os.kill(process, signal.SIGKILL)
    # Its pod goes too: started anew in the same pod it would find the Lease its own and go on at once.
    kubectl("-n", postroom.namespace, "delete", "pod", old, "--force", "--grace-period=0")
    postroom.measured["a leader that was killed is followed"] = round(followed(postroom, old, TAKEOVER), 1)

    def published() -> bool:
        postroom.publish()
        states = [state for _, state in rows(postroom)]
        return sorted(states) == ["Active", "Active", "Retiring", "Retiring"]

    until("both keys have changed", published, 2 * READY)
    assert sorted(keys(postroom).values()) == ["Ed25519", "Ed25519", "RSA2048", "RSA2048"]


def keys(postroom: Installation) -> dict[str, str]:
    """Secret → algorithm of every DKIM key."""
    found = [item for item in items("secret", postroom.keys, OURS) if item["type"] == "mail.postroom.dev/dkim-key"]
    return {item["metadata"]["name"]: item["metadata"]["annotations"]["mail.postroom.dev/algorithm"] for item in found}


def rows(postroom: Installation) -> list[tuple[str, str]]:
    """(selector, state) as the status tells."""
    shown = get("maildomain", DOMAIN, postroom.namespace)["status"]["dkim"]["keys"]
    return [(key["selector"], key["state"]) for key in shown]


def processes(postroom: Installation, pod: str) -> list[int]:
    """The main process of a pod's container as this machine sees it, by the pod's control group; none on a cluster whose nodes are elsewhere."""
    uid = get("pod", pod, postroom.namespace)["metadata"]["uid"]
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            group, command = (folder / "cgroup").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if (uid in group or uid.replace("-", "_") in group) and b"postroom_operator" in command:
            found.append(int(folder.name))
    if not found:
        pytest.skip("the nodes of this cluster are other machines")
    return found
