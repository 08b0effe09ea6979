"""Pods that die, an API server that is away: nothing that was accepted is lost, and what comes twice is counted.

PostgreSQL runs outside of the cluster, as a managed database would. The rate is E2E_RATE messages a second, 20 unless said otherwise: on two
cores the pods, the database, the receiving server and the load share what there is.
"""

import functools
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest
from e2e.installation import DOMAIN, Installation, Load
from e2e.world import PATIENCE, READY, WORLD, kubectl, run, until

from contract.postgres import Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
RATE = float(os.environ.get("E2E_RATE", "20"))
STATE = pathlib.Path(os.environ.get("CLUSTER_STATE", "/tmp/cluster"))
SETTLED = 180 * PATIENCE
PG_PORT = 5432


@pytest.fixture(scope="module")
def scaled(postroom: Installation) -> Iterator[str]:
    """A pool on PostgreSQL with three pods, and the domain moved to it."""
    server = Server(listen_addresses=WORLD, max_connections=100)
    try:
        with (server.folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.0.0.0/8 trust\n")
        server.sql("SELECT pg_reload_conf()", url=f"postgresql://postgres@/postgres?host={server.folder}&port={PG_PORT}")
        server.sql("CREATE DATABASE spool", url=f"postgresql://postgres@/postgres?host={server.folder}&port={PG_PORT}")
        uri = f"postgresql://postgres@{WORLD}:{PG_PORT}/spool"
        kubectl("-n", postroom.namespace, "create", "secret", "generic", "spool", f"--from-literal=uri={uri}")
        kubectl("-n", postroom.namespace, "label", "secret", "spool", "mail.postroom.dev/credential=true")
        postroom.pool("scaled", spool={"secretRef": {"name": "spool"}}, replicas=3, autoscaling={"provider": "None"})
        postroom.domain(pool="scaled")
        until("three pods of the pool", lambda: len(ready(postroom, "scaled-delivery")) == 3, READY)
        until("the domain uses the pool", lambda: postroom.condition("maildomain", DOMAIN).get("status") == "True", READY)
        time.sleep(3)  # a change is in force within 2 s
        yield "scaled"
    finally:
        server.remove()


def ready(postroom: Installation, pool: str) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in postroom.pods("delivery")
        if pod["metadata"]["labels"].get("mail.postroom.dev/pool") == pool
        and "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    ]


def names(postroom: Installation, component: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in postroom.pods(component)]


def flows_on(load: Load) -> None:
    count = len(load.accepted)
    until("mail flows on", lambda: len(load.accepted) > count + 20, SETTLED)


def settled(load: Load) -> None:
    """All that was accepted has arrived."""
    until("all that was accepted", lambda: not load.missing(), SETTLED)


def ambiguous(postroom: Installation, pool: str) -> int:
    return int(json.loads(postroom.postroom("--pool", pool, "stats", "--json"))["in_doubt"])


def test_three_pods_share_the_work(postroom: Installation, scaled: str) -> None:
    with Load(postroom, RATE) as load:
        until("two hundred messages", lambda: len(load.accepted) >= 200, SETTLED)
    settled(load)
    assert set(load.arrived().values()) == {1}
    took_part = 0
    for pod in ready(postroom, "scaled-delivery"):
        text = kubectl("get", "--raw", f"/api/v1/namespaces/{postroom.namespace}/pods/{pod}:2580/proxy/metrics")
        took_part += any(line.startswith("postroom_delivery_accepted_total") and not line.endswith(" 0.0") for line in text.splitlines())
    assert took_part == 3


def test_pods_of_every_kind_are_killed_under_load_and_nothing_is_lost(postroom: Installation, scaled: str) -> None:
    """Each kind twice, by force and at once; then every workload is rolled over."""
    began = time.monotonic()
    with Load(postroom, RATE) as load:
        for component in ("delivery", "ingress", "signer", "operator") * 2:
            victim = (ready(postroom, "scaled-delivery") if component == "delivery" else names(postroom, component))[0]
            kubectl("-n", postroom.namespace, "delete", "pod", victim, "--force", "--grace-period=0")
            flows_on(load)
            until(f"{component} is whole again", functools.partial(postroom.ready, component), READY)
        for workload in ("postroom-ingress", "postroom-signer", "postroom-operator", "scaled-delivery"):
            kubectl("-n", postroom.namespace, "rollout", "restart", f"deployment/{workload}")
        for workload in ("postroom-ingress", "postroom-signer", "postroom-operator", "scaled-delivery"):
            kubectl("-n", postroom.namespace, "rollout", "status", f"deployment/{workload}", f"--timeout={SETTLED:.0f}s", seconds=SETTLED + 20)
        rate = len(load.accepted) / (time.monotonic() - began)
    settled(load)
    arrived = load.arrived()
    twice = sum(count - 1 for count in arrived.values())
    told = ambiguous(postroom, "scaled")
    numbers = {
        "messages a second": round(rate, 1),
        "accepted": len(load.accepted),
        "arrived": sum(arrived.values()),
        "twice": twice,
        "ambiguous": told,
        "sent again": load.retried,
    }
    postroom.measured |= {f"while pods were killed: {name}": number for name, number in numbers.items()}
    # A client that was cut before the reply sends again, which no server can know to be the same message.
    assert twice <= told + load.retried


def test_pods_that_are_evicted_one_after_the_other_as_in_a_drain_lose_nothing_and_cut_nobody(postroom: Installation, scaled: str) -> None:
    """By the eviction API, which asks the PodDisruptionBudgets; a real drain of the only node would leave no place for the pods."""
    with Load(postroom, RATE) as load:
        for component in ("ingress", "signer", "delivery", "operator"):
            for victim in ready(postroom, "scaled-delivery") if component == "delivery" else names(postroom, component):
                until(f"{victim} may be evicted", functools.partial(evicted, postroom, victim), READY)
                until(f"{component} is whole again", functools.partial(whole, postroom, component, victim), READY)
        flows_on(load)
    settled(load)
    arrived = load.arrived()
    twice = sum(arrived.values()) - len(arrived)
    postroom.measured |= {"while pods were evicted: accepted": len(load.accepted), "while pods were evicted: sent again": load.retried}
    assert twice <= load.retried


def evicted(postroom: Installation, pod: str) -> bool:
    """Whether the API server lets it go; a budget that is used up says no."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": postroom.namespace}}
    path = f"/api/v1/namespaces/{postroom.namespace}/pods/{pod}/eviction"
    return "Success" in kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body), check=False)


def whole(postroom: Installation, component: str, without: str) -> bool:
    return without not in names(postroom, component) and postroom.ready(component)


def test_mail_flows_on_while_the_api_server_is_away(postroom: Installation, scaled: str) -> None:
    """For a minute it answers nobody; then what was applied meanwhile comes into force."""
    pidfile = STATE / "pids" / "apiserver"
    if not pidfile.exists():
        pytest.skip("only the project's own cluster's API server can be stopped")
    pid = int(pidfile.read_text())
    with Load(postroom, RATE) as load:
        time.sleep(15)
        usual = len(load.accepted) / 15
        os.kill(pid, signal.SIGSTOP)
        try:
            before = len(load.accepted)
            time.sleep(60)
            flowed = (len(load.accepted) - before) / 60
        finally:
            os.kill(pid, signal.SIGCONT)
    postroom.measured |= {"messages a second": round(usual, 1), "messages a second without an API server": round(flowed, 1)}
    assert flowed > usual * 0.5
    assert load.retried == 0
    settled(load)
    until("the API is back", lambda: run("kubectl", "get", "--raw", "/readyz", check=False) == "ok", READY)
    seen = postroom.condition("maildomain", DOMAIN).get("observedGeneration", 0)
    postroom.domain(pool="scaled", limits={"maxRecipientsPerMessage": 7})
    until("the change is seen", lambda: postroom.condition("maildomain", DOMAIN).get("observedGeneration", 0) > seen, READY)
