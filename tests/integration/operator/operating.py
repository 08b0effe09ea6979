"""The operator as a process beside a real API server, and the resources that tests give it."""

import contextlib
import copy
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from integration.operator.apiserver import ApiServer, free_port

GROUP = "/apis/mail.postroom.dev/v1alpha1/namespaces"
START_SECONDS = 90.0  # 3 s on an idle machine
STOP_SECONDS = 20.0


@dataclasses.dataclass
class Place:
    """The namespaces of one installation, and a tenant's."""

    platform: str
    keys: str
    tenant: str


@dataclasses.dataclass
class Operator:
    """A running operator."""

    process: subprocess.Popen[bytes]
    http: int
    log: pathlib.Path

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and not line.startswith("#"))

    def leads(self) -> bool:
        with contextlib.suppress(OSError):
            return self.metric("postroom_operator_leader") == 1.0
        return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)


OPERATOR = ("-m", "postroom_operator")
# An operator that is started anew whenever it dies; it has imported everything before, which is most of a start. Its deaths are lines of its log.
IMMORTAL = (
    "-c",
    """
import os, signal, sys
from postroom_operator.__main__ import main
ended, child = False, 0

def end(*_):
    global ended
    ended = True
    if child:
        os.kill(child, signal.SIGTERM)

while not ended:
    child = os.fork()
    if child == 0:
        main()
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    child = 0
    print("died", code, file=sys.stderr, flush=True)
""",
)


@contextlib.contextmanager
def operating(api: ApiServer, place: Place, folder: pathlib.Path, program: Sequence[str] = OPERATOR, **settings: object) -> Iterator[Operator]:
    """Starts one; ends it by SIGTERM, and says so when that does not end it. Settings are POSTROOM_ names in lower case."""
    port = free_port()
    log = folder / f"operator-{port}.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
        "KUBECONFIG": str(api.kubeconfig),
        "POSTROOM_PLATFORM_NAMESPACE": place.platform,
        "POSTROOM_KEY_NAMESPACE": place.keys,
        "POSTROOM_DELIVERY_IMAGE": "localhost/postroom-delivery:test",
        "POSTROOM_HTTP": f"127.0.0.1:{port}",
        "POSTROOM_LEASE_SECONDS": "3",
        "POSTROOM_WATCH_NAMESPACES": f"{place.platform},{place.tenant}",
        "POSTROOM_RESOLVERS": "127.0.0.1:9",  # nobody: no test asks the world
        **{f"POSTROOM_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *program], env=environment, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield Operator(process, port, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the operator did not end by SIGTERM:\n{log.read_text()[-2000:]}") from None


def until(what: str, check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer of `check`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def pool(name: str = "main", **spec: Any) -> dict[str, Any]:
    wanted = {"domains": {"namespaces": {"from": "All"}}, **spec}
    return {"apiVersion": "mail.postroom.dev/v1alpha1", "kind": "SendingPool", "metadata": {"name": name}, "spec": wanted}


def domain(name: str, place: Place, **spec: Any) -> dict[str, Any]:
    wanted = {
        "domainName": f"{name}.example",
        "poolRef": {"name": "main", "namespace": place.platform},
        "dkim": {},
        "dns": {"dmarc": {"policy": "Unmanaged"}},
        "credentials": [{"name": "app", "secretRef": {"name": f"{name}-app"}, "allowedSenders": [f"*@{name}.example"]}],
    }
    return {
        "apiVersion": "mail.postroom.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": name},
        "spec": copy.deepcopy({**wanted, **spec}),
    }


def apply(api: ApiServer, namespace: str, document: dict[str, Any]) -> Any:
    plural = {"MailDomain": "maildomains", "SendingPool": "sendingpools"}[document["kind"]]
    return api.apply(f"{GROUP}/{namespace}/{plural}/{document['metadata']['name']}", document)


def condition(found: dict[str, Any] | None, kind: str) -> tuple[str, str]:
    """(status, reason) of a condition; empty while there is none."""
    for entry in ((found or {}).get("status") or {}).get("conditions", []):
        if entry["type"] == kind:
            return entry["status"], entry["reason"]
    return "", ""


def our_writes(api: ApiServer, since: int) -> list[str]:
    """Audited writes after `since`, but for Leases."""
    return [f"{entry['verb']} {entry['requestURI']}" for entry in api.writes()[since:] if "/leases/" not in entry["requestURI"]]
