"""A thousand MailDomains on a real API server: how long a restart takes, how fast an edit is in force, what memory it costs.

The limits are promises of docs/kubernetes/capacity.md. POSTROOM_TEST_DOMAINS makes it a smaller world; the limits stay. The domains have keys that
sign, as after a restore from a backup: making two thousand keys takes minutes of processor and tells nothing of the operator.
"""

import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from postroom_operator.app import now
from postroom_operator.plan import keys as key_names
from postroom_operator.plan import keysecrets
from postroom_operator.plan.dkim import Key, State
from postroom_operator.plan.names import Owner
from postroom_operator.reconcile.keys import _generate

from integration.operator import apiserver, operating
from integration.operator.apiserver import ApiServer
from integration.operator.operating import GROUP, Operator, Place, apply, domain, pool, until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]
DOMAINS = int(os.environ.get("POSTROOM_TEST_DOMAINS", "1000"))
TENANTS = 10
EDITS = 100
RESYNC_SECONDS, EDIT_SECONDS, MEBIBYTES = 60.0, 2.0, 250
ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[ApiServer]:
    """One of its own: the operator watches the whole cluster, as the chart sets it up."""
    if not apiserver.BINARY.exists():
        pytest.skip(f"no Kubernetes binary at {apiserver.BINARY}; POSTROOM_KUBE names one")
    home = tmp_path / "apiserver"
    home.mkdir()
    with apiserver.running(home) as found:
        apiserver.install_crds(found, [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))])
        yield found


def test_a_thousand_mail_domains(server: ApiServer, tmp_path: pathlib.Path) -> None:
    place = Place("platform", "platform-keys", "tenant-0")
    for name in (place.platform, place.keys, *(f"tenant-{number}" for number in range(TENANTS))):
        assert server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})[0] == 201
    apply(server, place.platform, pool())
    keys = {algorithm: _generate(algorithm) for algorithm in ("RSA2048", "Ed25519")}
    for number in range(DOMAINS):
        made = apply(server, f"tenant-{number % TENANTS}", domain(f"d{number}", place))
        for algorithm, pem in keys.items():
            assert server.request("POST", f"/api/v1/namespaces/{place.keys}/secrets", signing(made, place, algorithm, pem))[0] == 201
    began = time.monotonic()
    with operating.operating(server, place, tmp_path, watch_namespaces="", lease_seconds=60) as first:
        until("every MailDomain is looked at", lambda: done(first), 900)
        until("every MailDomain is as it should be", lambda: behind(server) == 0)
        took = time.monotonic() - began
        memory = peak(first)
    began = time.monotonic()
    with operating.operating(server, place, tmp_path, watch_namespaces="", lease_seconds=60) as second:
        until("every MailDomain is looked at again", lambda: done(second), 10 * RESYNC_SECONDS)
        resync = time.monotonic() - began
        seconds = sorted(edited(server, number) for number in range(0, DOMAINS, max(1, DOMAINS // EDITS)))
        again = peak(second)
    median, last = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99) - 1]
    print(f"\n{DOMAINS} MailDomains: reconciled in {took:.0f} s, {memory} MiB at most")
    print(f"looked at again in {resync:.1f} s after a restart, {again} MiB at most")
    print(f"{len(seconds)} edits: in force after {median:.2f} s in the middle, p99 {last:.2f} s")
    assert max(memory, again) < MEBIBYTES
    assert resync < RESYNC_SECONDS
    assert last < EDIT_SECONDS


def signing(made: dict[str, Any], place: Place, algorithm: str, pem: str) -> dict[str, Any]:
    """The Secret of a key that signs for a MailDomain."""
    metadata, name = made["metadata"], made["spec"]["domainName"]
    public = key_names.describe(pem)[1]
    moment = now()
    key = Key(key_names.selector("s", moment, public), algorithm, State.ACTIVE, moment, published=moment, activated=moment)
    owner = Owner("MailDomain", metadata["namespace"], metadata["name"], metadata["uid"])
    return keysecrets.to_secret(owner, (place.keys, keysecrets.secret_name(name, algorithm, 1)), key, pem, public, 1)


def behind(server: ApiServer) -> int:
    """How many are not reconciled as they are now."""
    found = [item for number in range(TENANTS) for item in server.get(f"{GROUP}/tenant-{number}/maildomains")["items"]]
    assert len(found) == DOMAINS
    return sum(not current(item) for item in found)


def current(found: dict[str, Any]) -> bool:
    status = found.get("status", {})
    return bool(status.get("observedGeneration") == found["metadata"]["generation"] and len(status.get("dkim", {}).get("keys", [])) == 2)


def edited(server: ApiServer, number: int) -> float:
    """Seconds from an edit of the spec to the status that says so."""
    path = f"{GROUP}/tenant-{number % TENANTS}/maildomains/d{number}"
    patch = {"spec": {"dns": {"dmarc": {"policy": "Quarantine"}}}}
    began = time.monotonic()
    assert server.request("PATCH", path, patch, "application/merge-patch+json")[0] == 200
    until("the edit is seen", lambda: current(server.get(path)), 60)
    return time.monotonic() - began


def done(operator: Operator) -> bool:
    """Whether it has looked at each of them."""
    assert operator.process.poll() is None, operator.log.read_text()[-2000:]
    time.sleep(0.5)
    try:
        looks = operator.metric('postroom_operator_reconciles_total{kind="MailDomain",outcome="done"}')
        return looks >= DOMAINS and operator.metric("postroom_operator_pending") == 0
    except OSError:
        return False


def peak(operator: Operator) -> int:
    """The most memory that it has had, in MiB."""
    text = pathlib.Path(f"/proc/{operator.process.pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024
