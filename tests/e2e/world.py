"""What the end-to-end tests stand on: kubectl, helm, an authoritative BIND and a receiving server in the world outside of the cluster, senders.

Run inside of the cluster's network (`make e2e`). The world outside is one address of the node, 10.77.0.1, for mail, and another for DNS.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import smtplib
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.update

from postroom_core.testing.sink import Received, Sink

Object = dict[str, Any]
ROOT = pathlib.Path(__file__).resolve().parents[2]
WORLD, NAMESERVER = os.environ.get("E2E_WORLD", "10.77.0.1"), os.environ.get("E2E_NAMESERVER", "10.77.0.53")
MX_PORT = 2526
# Seconds; E2E_PATIENCE multiplies them on a slow machine.
PATIENCE = float(os.environ.get("E2E_PATIENCE", "1"))
READY, RESTORED = 90 * PATIENCE, 5 * PATIENCE


def run(*command: str, stdin: str = "", check: bool = True, seconds: float = 120) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def kubectl(*arguments: str, stdin: str = "", check: bool = True, seconds: float = 120) -> str:
    return run("kubectl", *arguments, stdin=stdin, check=check, seconds=seconds)


def apply(*objects: Object) -> None:
    kubectl(
        "apply", "--server-side", "--field-manager=e2e", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    )


def get(kind: str, name: str, namespace: str) -> Object:
    """Empty when there is none."""
    text = kubectl("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
    found: Object = json.loads(text) if text else {}
    return found


def items(kind: str, namespace: str, selector: str = "") -> list[Object]:
    found: list[Object] = json.loads(kubectl("-n", namespace, "get", kind, "-l", selector, "-o", "json"))["items"]
    return found


def until(what: str, condition: Callable[[], Any], seconds: float) -> Any:
    """Polls, because what is waited for is on the other side of an API; the value when it is true. Fails with `what`."""
    ends = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < ends, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.25)


def this_is_a_test_cluster() -> bool:
    """Whether the cluster may be filled and emptied: the project's own, kind, or one that E2E_CONTEXT names."""
    context = run("kubectl", "config", "current-context", check=False).strip()
    return context == "c" or context.startswith("kind-") or (bool(context) and context == os.environ.get("E2E_CONTEXT"))


class Bind:
    """An authoritative BIND with one zone for each domain, changed by RFC 2136."""

    def __init__(self, folder: pathlib.Path, zones: tuple[str, ...]) -> None:
        self._folder = folder
        self._zones = zones
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Bind":
        binary = shutil.which("named")
        assert binary is not None
        run("ip", "addr", "replace", f"{NAMESERVER}/32", "dev", "lo")
        for zone in self._zones:
            head = f"$TTL 1\n@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 1\n@ NS ns.{zone}.\nns A {NAMESERVER}\n"
            (self._folder / f"{zone}.zone").write_text(f"{head}@ MX 10 mx\nmx A {WORLD}\n")
        text = f'options {{ directory "{self._folder}"; listen-on {{ {NAMESERVER}; }}; listen-on-v6 {{ none; }}; recursion no; pid-file none; }};\n'
        text += "controls { };\n"
        for zone in self._zones:
            text += f'zone "{zone}" {{ type primary; file "{zone}.zone"; allow-update {{ any; }}; }};\n'
        (self._folder / "named.conf").write_text(text)
        with (self._folder / "named.log").open("wb") as log:
            self._process = subprocess.Popen([binary, "-g", "-c", str(self._folder / "named.conf")], stdout=log, stderr=log)
        until("BIND answers", self._answers, 20)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, dns.exception.DNSException):
            question = dns.message.make_query(self._zones[0], "SOA")
            return bool(dns.query.udp(question, NAMESERVER, timeout=1).answer)
        return False

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def publish(self, zone: str, name: str, rdtype: str, value: str) -> None:
        """Replaces an RRset; a TXT value is split as DNS wants it."""
        update = dns.update.UpdateMessage(zone)
        parts = [value[at : at + 255] for at in range(0, len(value), 255)]
        update.replace(f"{name}.", 1, rdtype, " ".join(f'"{part}"' for part in parts) if rdtype == "TXT" else value)
        assert dns.query.tcp(update, NAMESERVER, timeout=5).rcode() == dns.rcode.NOERROR

    def remove(self, zone: str, name: str, rdtype: str) -> None:
        update = dns.update.UpdateMessage(zone)
        update.delete(f"{name}.", rdtype)
        assert dns.query.tcp(update, NAMESERVER, timeout=5).rcode() == dns.rcode.NOERROR

    def txt(self, name: bytes, timeout: int = 5) -> bytes | None:
        """As dkimpy asks for a key: from the authoritative server itself."""
        answer = dns.query.tcp(dns.message.make_query(name.decode(), "TXT"), NAMESERVER, timeout=timeout)
        for rrset in answer.answer:
            return b"".join(rrset[0].strings)
        return None


class Mailbox:
    """The world's receiving server, in a thread of its own."""

    def __init__(self) -> None:
        self.messages: list[Received] = []
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    async def _serve(self) -> None:
        async with Sink(WORLD, MX_PORT, on_message=self.messages.append):
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> "Mailbox":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def holding(self, marker: str) -> list[Received]:
        return [message for message in list(self.messages) if marker.encode() in message.content]


def service_address(name: str, namespace: str) -> str:
    """The ClusterIP: this network resolves no cluster names."""
    return str(get("service", name, namespace)["spec"]["clusterIP"])


def unverified() -> ssl.SSLContext:
    """The listener's certificate is self-signed here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.contextmanager
def session(host: str, login: tuple[str, str], port: int = 587) -> Iterator[smtplib.SMTP]:
    """An authenticated submission session over TLS."""
    client = smtplib.SMTP(host, port, timeout=30)
    try:
        client.starttls(context=unverified())
        client.login(*login)
        yield client
    finally:
        client.close()


def message(sender: str, recipient: str, marker: str) -> str:
    return f"From: {sender}\r\nTo: {recipient}\r\nSubject: {marker}\r\n\r\nA test of the whole path, {marker}.\r\n"
