"""DKIM rotation against a real API server and two real authoritative servers (BIND), with the operator killed after every single write.

The test plays external-dns (it publishes status.dnsRecords in the zone) and the signers (a gRPC server that holds what the KeySet document says).
"""

import asyncio
import base64
import contextlib
import functools
import json
import pathlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postroom.v1 import signer_pb2_grpc
from postroom_core import rpc
from postroom_core.documents import KeySet, SigningKey
from postroom_core.snapshot import Snapshot
from postroom_operator.app import now
from postroom_operator.plan import pki
from postroom_signer.keys import Keyring
from postroom_signer.servicer import SignerServicer

from integration.operator import operating
from integration.operator.apiserver import ApiServer, free_port
from integration.operator.operating import GROUP, Place, apply, condition, domain, pool, until

pytestmark = [pytest.mark.timeout(400), pytest.mark.skipif(shutil.which("named") is None, reason="no named (Debian package bind9)")]
# Port 53 of loopback addresses that nobody else uses.
SERVERS = ("127.88.0.1", "127.88.0.2")
ZONE = "rotating.example"
SIGNER = "10.88.53.1"
DONE_SECONDS = 800.0


class Zone:
    """One zone on two primaries that do not know each other: the test decides what each of them shows."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._serial = 1

    def configure(self, server: str) -> list[str]:
        home = self._folder / server
        home.mkdir()
        (home / "named.conf").write_text(
            f'options {{ directory "{home}"; listen-on {{ {server}; }}; listen-on-v6 {{ none; }}; recursion no; pid-file none; }};\n'
            f'controls {{ }};\nzone "{ZONE}" {{ type primary; file "zone"; }};\n'
        )
        self._write(server, [])
        return ["named", "-g", "-n", "1", "-c", str(home / "named.conf")]

    def _write(self, server: str, records: list[tuple[str, str]]) -> None:
        lines = ["$TTL 1", f"@ SOA ns1 root {self._serial} 60 60 60 1", "@ NS ns1", "@ NS ns2"]
        lines += [f"ns{number} A {address}" for number, address in enumerate(SERVERS, 1)]
        lines += [f"{name}. TXT {' '.join(json.dumps(value[at : at + 255]) for at in range(0, len(value), 255))}" for name, value in records]
        (self._folder / server / "zone").write_text("\n".join(lines) + "\n")

    def publish(self, records: list[tuple[str, str]], processes: dict[str, subprocess.Popen[bytes]], servers: tuple[str, ...] = SERVERS) -> None:
        """SIGHUP makes named read its zones anew."""
        self._serial += 1
        for server in servers:
            self._write(server, records)
            processes[server].send_signal(1)


@contextlib.contextmanager
def nameservers(folder: pathlib.Path) -> Iterator[tuple[Zone, dict[str, subprocess.Popen[bytes]]]]:
    zone = Zone(folder)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with contextlib.ExitStack() as stack:
        for server in SERVERS:
            stack.enter_context(address_on_loopback(server))  # BIND listens on addresses of interfaces only
            log = stack.enter_context((folder / f"{server}.log").open("wb"))
            processes[server] = subprocess.Popen(zone.configure(server), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            stack.callback(_end, processes[server])
        yield zone, processes


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


class World:
    """External-dns and the operator's settings for one rotation."""

    def __init__(self, api: ApiServer, place: Place, zone: Zone, processes: dict[str, subprocess.Popen[bytes]]) -> None:
        self.api, self.place, self.zone, self.processes = api, place, zone, processes
        self.path = f"{GROUP}/{place.tenant}/maildomains/rotating"
        self._stop = threading.Event()
        self._shown: list[tuple[str, str]] = []
        self.servers: tuple[str, ...] = SERVERS

    def published(self) -> None:
        """Publishes status.dnsRecords until stopped."""
        while not self._stop.wait(0.3):
            wanted = [(record["name"], record["value"]) for record in ((self.api.get(self.path) or {}).get("status") or {}).get("dnsRecords", [])]
            if wanted != self._shown:
                self.zone.publish(wanted, self.processes, self.servers)
                self._shown = wanted

    @contextlib.contextmanager
    def publishing(self) -> Iterator[None]:
        thread = threading.Thread(target=self.published)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(10)

    def keys(self) -> dict[str, tuple[str, str]]:
        """selector → (algorithm, state), from the key Secrets."""
        items = self.api.get(f"/api/v1/namespaces/{self.place.keys}/secrets")["items"]
        notes = [item["metadata"]["annotations"] for item in items if item["type"] == "mail.postroom.dev/dkim-key"]
        return {note["mail.postroom.dev/selector"]: (note["mail.postroom.dev/algorithm"], note["mail.postroom.dev/state"]) for note in notes}

    def signing(self) -> set[str]:
        return {key["selector"] for key in self.keyset() if key["signs"]}

    def keyset(self) -> list[dict[str, Any]]:
        found = self.api.get(f"/api/v1/namespaces/{self.place.keys}/secrets/keyset-{ZONE}")
        return list(json.loads(base64.b64decode(found["data"]["document"]))["keys"]) if found else []

    def in_zone(self) -> set[str]:
        return {name.partition(".")[0] for name, _ in self._shown}


@pytest.fixture
def world(api: ApiServer, namespace: Callable[[str], str], tmp_path: pathlib.Path) -> Iterator[World]:
    place = Place(namespace("platform"), namespace("keys"), namespace("tenant"))
    with nameservers(tmp_path) as (zone, processes):
        found = World(api, place, zone, processes)
        apply(api, place.platform, pool())
        with found.publishing():
            yield found


def settings(world: World) -> dict[str, Any]:
    return {"resolvers": f"{SERVERS[0]}:53", "dns_check_seconds": 1, "dns_settle_seconds": 2}


def test_a_key_signs_only_when_both_name_servers_show_it(world: World, tmp_path: pathlib.Path) -> None:
    """Without signers nothing becomes active: the keys get as far as Published, and there only when the second server shows them too."""
    world.servers = SERVERS[:1]
    with operating.operating(world.api, world.place, tmp_path, **settings(world)):
        apply(world.api, world.place.tenant, domain("rotating", world.place, credentials=[]))

        def records() -> list[dict[str, Any]]:
            found = ((world.api.get(world.path) or {}).get("status") or {}).get("dnsRecords", [])
            return [record for record in found if record.get("authoritativeAgree") == 1 and record["authoritativeTotal"] == 2]

        until("one of two servers shows both records", lambda: len(records()) == 2, 60)
        time.sleep(5)
        assert {state for _, state in world.keys().values()} == {"Publishing"}
        assert condition(world.api.get(world.path), "DNSReady") == ("False", "RecordMismatch")
        world.servers = SERVERS
        world._shown = []
        until("both are Published", lambda: {state for _, state in world.keys().values()} == {"Published"}, 60)
        until("the status says so", lambda: condition(world.api.get(world.path), "DKIMRotating") == ("True", "WaitingForSigners"))
        assert world.signing() == set()
        until("the signers get them", lambda: {key["selector"] for key in world.keyset()} == set(world.keys()))


@pytest.mark.heavy
@pytest.mark.timeout(1800)  # some sixty lives of the operator, of seconds each on a busy machine
def test_killed_after_every_write_a_rotation_ends_the_same(world: World, tmp_path: pathlib.Path) -> None:
    """First keys, then a rotation by trigger. The operator dies right after each single write and is started again, until all is done."""
    with signers(world, tmp_path) as signer:
        apply(world.api, world.place.tenant, domain("rotating", world.place, credentials=[]))
        deaths = _until_done(world, tmp_path, signer, lambda: len(world.signing()) == 2)
        first = world.signing()
        patch = {"spec": {"dkim": {"rotation": {"trigger": "now"}}}}
        assert world.api.request("PATCH", world.path, patch, "application/merge-patch+json")[0] == 200
        seen: list[set[str]] = []

        def both_new() -> bool:
            seen.append(world.signing())
            return len(seen[-1] - first) == 2

        deaths += _until_done(world, tmp_path, signer, both_new)
    assert deaths > 10
    assert all(any(world.keys()[selector][0] == "RSA2048" for selector in signing) for signing in seen if signing)  # never unsigned on the way
    states = sorted(world.keys().values())
    assert states == [("Ed25519", "Active"), ("Ed25519", "Retiring"), ("RSA2048", "Active"), ("RSA2048", "Retiring")]
    assert first <= world.in_zone()  # what signed before stays for mail that is on its way


def _until_done(world: World, folder: pathlib.Path, signer: dict[str, Any], done: Callable[[], bool]) -> int:
    """Lives of the operator, each of which ends right after its first write, until all is done; how many."""
    # One name for all lives: the Lease of the one that died is its own still, so that no time goes by waiting for it.
    life: dict[str, Any] = {"failpoint": 1, "instance": "mortal", "lease_seconds": 60, **settings(world), **signer}
    with operating.operating(world.api, world.place, folder, operating.IMMORTAL, **life) as operator:
        until("all is done", done, DONE_SECONDS)
        return operator.log.read_text().count("died 137")


@contextlib.contextmanager
def signers(world: World, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """One signer behind an EndpointSlice, with the product's servicer and mTLS; it holds what the KeySet document says."""
    place = pki.Place("postroom", world.place.platform, world.place.keys, "ca")
    made = {secret["metadata"]["name"]: secret for secret in pki.due(None, {}, place, now())}
    folders = {}
    for service in ("operator", "signer"):
        home = folders[service] = folder / f"tls-{service}"
        home.mkdir()
        for name, value in made[place.secret(service)]["data"].items():
            (home / name).write_bytes(base64.b64decode(value))
    body = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "signer", "labels": {"kubernetes.io/service-name": "postroom-signer"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [SIGNER], "conditions": {"ready": True}}],
    }
    world.api.apply(f"/apis/discovery.k8s.io/v1/namespaces/{world.place.platform}/endpointslices/signer", body)
    port, keyring, stop = free_port(), Keyring(), threading.Event()

    async def serve() -> None:
        servicer = SignerServicer(keyring)
        target = f"{SIGNER}:{port}"
        register = functools.partial(signer_pb2_grpc.add_SignerServicer_to_server, servicer)
        async with rpc.serve(target, register, grace_seconds=0, tls=folders["signer"]):
            while not stop.is_set():
                keys = tuple(SigningKey.model_validate(key) for key in await asyncio.to_thread(world.keyset))
                keyring.replace(Snapshot("1", [KeySet(name=ZONE, tenant=world.place.tenant, keys=keys)]))
                await asyncio.sleep(0.3)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    with address_on_loopback(SIGNER):
        thread.start()
        try:
            yield {"signer_port": port, "grpc_tls": folders["operator"]}
        finally:
            stop.set()
            thread.join(20)


@contextlib.contextmanager
def address_on_loopback(address: str) -> Iterator[None]:
    """EndpointSlices admit no address of 127/8, BIND none without an interface: a further address on the loopback device serves both."""
    added = subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], capture_output=True)
    if added.returncode != 0:
        pytest.skip(f"no address can be added to the loopback device: {added.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)
