"""`kubectl postroom` with a kubectl that answers from files, and a real gRPC server with the platform's certificates behind its port-forward."""

import asyncio
import base64
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from postroom.v1 import queue_pb2, reputation_pb2, webhooks_pb2
from postroom_core import rpc

from integration.core.test_mtls import Platform, free_port

# Answers `kubectl get KIND …` with KIND.json beside it and `port-forward` with the port in `port`; then waits to be ended.
STUB = """#!{python}
import pathlib, signal, sys
here = pathlib.Path(__file__).parent
words = [word for word in sys.argv[1:] if not word.startswith("--")]
if words[0] == "get":
    found = here / (words[1] + ".json")
    if not found.exists():
        sys.exit("Error from server (NotFound): " + words[1])
    print(found.read_text())
else:
    print("Forwarding from 127.0.0.1:" + (here / "port").read_text() + " -> 7443", flush=True)
    signal.pause()
"""
LABELS = {"mail.postroom.dev/pool": "main-delivery"}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


async def stats(_: queue_pb2.StatsRequest, __: Any) -> queue_pb2.StatsResponse:
    return queue_pb2.StatsResponse(recipients={"scheduled": 7}, due=3)


async def no_webhooks(_: webhooks_pb2.WebhooksRequest, __: Any) -> webhooks_pb2.WebhooksResponse:
    return webhooks_pb2.WebhooksResponse()


async def no_curbs(_: reputation_pb2.ReputationRequest, __: Any) -> reputation_pb2.ReputationResponse:
    return reputation_pb2.ReputationResponse()


# What `stats` asks: service, method, answer, request.
ASKED: list[tuple[str, str, Any, Any]] = [
    ("Queue", "Stats", stats, queue_pb2.StatsRequest),
    ("Webhooks", "List", no_webhooks, webhooks_pb2.WebhooksRequest),
    ("Reputation", "List", no_curbs, reputation_pb2.ReputationRequest),
]


class Cluster:
    """What the stub of kubectl answers."""

    def __init__(self, folder: pathlib.Path, port: int) -> None:
        self.folder = folder
        stub = folder / "kubectl"
        stub.write_text(STUB.format(python=sys.executable))
        stub.chmod(0o755)
        (folder / "port").write_text(str(port))

    def answer(self, kind: str, *objects: Any) -> None:
        (self.folder / f"{kind}.json").write_text(json.dumps({"items": list(objects)}))

    def postroom(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        return subprocess.run([sys.executable, "-m", "postroom_cli.kubectl", *arguments], env=environment, capture_output=True, text=True, timeout=40)


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    platform, port, started, stop = Platform(tmp_path), free_port(), threading.Event(), asyncio.Event()
    delivery, cli = platform.folder("delivery"), platform.folder("cli")

    def register(server: rpc.Server) -> None:
        for service, method, answer, request in ASKED:
            handler: Any = grpc.unary_unary_rpc_method_handler(answer, request.FromString, lambda message: message.SerializeToString())
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(f"postroom.v1.{service}", {method: handler})])

    async def serve() -> None:
        async with rpc.serve(f"127.0.0.1:{port}", register, grace_seconds=0, tls=delivery):
            started.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    folder = tmp_path / "bin"
    folder.mkdir()
    made = Cluster(folder, port)
    made.answer("deployments", {"metadata": {"namespace": "mail", "name": "postroom-ingress"}})
    made.answer("pods", {"metadata": {"name": "main-delivery-0", "labels": LABELS}, "status": READY})
    data = {name: base64.b64encode((cli / name).read_bytes()).decode() for name in ("tls.crt", "tls.key", "ca.crt")}
    (folder / "secret.json").write_text(json.dumps({"data": data}))
    yield made
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_the_queue_of_a_cluster_is_asked_through_a_port_forward(cluster: Cluster) -> None:
    done = cluster.postroom("stats", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipients"] == {"scheduled": 7}


def test_several_pools_are_listed_and_one_is_chosen_by_name(cluster: Cluster) -> None:
    other = {"metadata": {"name": "bulk-delivery-0", "labels": {"mail.postroom.dev/pool": "bulk-delivery"}}, "status": READY}
    cluster.answer("pods", {"metadata": {"name": "main-delivery-0", "labels": LABELS}, "status": READY}, other)
    done = cluster.postroom("stats")
    assert (done.returncode, "bulk-delivery, main-delivery" in done.stderr) == (2, True)
    assert cluster.postroom("--pool", "main", "stats", "--json").returncode == 0


def test_what_is_not_there_is_said_in_one_line(cluster: Cluster) -> None:
    cluster.answer("pods", {"metadata": {"name": "main-delivery-0", "labels": LABELS}, "status": {}})
    done = cluster.postroom("stats")
    assert (done.returncode, "no pod of main-delivery is ready" in done.stderr) == (3, True)
    cluster.answer("deployments")
    done = cluster.postroom("stats")
    assert (done.returncode, "no Postroom" in done.stderr) == (2, True)
    (cluster.folder / "deployments.json").unlink()
    done = cluster.postroom("stats")
    assert (done.returncode, "NotFound" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_dns_shows_the_records_of_the_status_and_says_no_while_one_is_missing(cluster: Cluster) -> None:
    record = {"name": "s1._domainkey.d.example", "type": "TXT", "value": "v=DKIM1; p=x", "visible": "True", "authoritativeAgree": 2}
    domain = {"spec": {"domainName": "d.example"}, "status": {"dnsRecords": [{**record, "authoritativeTotal": 2}]}}
    cluster.answer("maildomains.mail.postroom.dev", domain)
    done = cluster.postroom("dns", "d.example")
    assert done.returncode == 0, done.stderr
    assert 's1._domainkey.d.example. IN TXT "v=DKIM1; p=x"' in done.stdout
    domain["status"]["dnsRecords"].append({**record, "visible": "False"})  # type: ignore[index]
    cluster.answer("maildomains.mail.postroom.dev", domain)
    assert cluster.postroom("dns", "d.example", "--json").returncode == 1
    assert cluster.postroom("dns", "other.example").returncode == 2


def test_a_delivery_that_is_older_than_the_command_is_named(cluster: Cluster) -> None:
    done = cluster.postroom("queue", "ls")
    assert (done.returncode, "delivery is older than this command" in done.stderr) == (2, True)
