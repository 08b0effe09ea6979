"""The product as a process tree: `postroom up` with its own data folder and ports, against a name server and a sink in a thread of the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroom_core.testing.dns import DnsServer
from postroom_core.testing.faults import Script
from postroom_core.testing.sink import Received, Sink

POSTROOM = pathlib.Path(sys.executable).with_name("postroom")
SERVICES = ("ingress", "signer", "delivery")
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
RESOURCES = """
apiVersion: mail.postroom.dev/v1alpha1
kind: SendingPool
metadata: {name: main}
spec: {retry: {maxAge: 1h, backoff: {initial: 1s, max: 2s}}}
---
apiVersion: mail.postroom.dev/v1alpha1
kind: MailDomain
metadata: {name: d}
spec:
  domainName: d.example
  poolRef: {name: main}
  dkim: {importedKeys: [{selector: rsa, secretRef: {name: rsa}}, {selector: ed, secretRef: {name: ed}}]}
  credentials: [{name: u, secretRef: {name: u}, allowedSenders: ["*@d.example"]}]
  clients: [{name: local, cidrs: [127.0.0.1/32], allowedSenders: ["*@d.example"]}]
---
kind: Secret
metadata: {name: u}
stringData: {username: u, password: p}
"""


def secret(name: str, key: Any) -> str:
    """A Secret document with a private key."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return f"---\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n  tls.key: |\n" + "".join(f"    {line}\n" for line in pem.splitlines())


class World:
    """A name server that sends all mail to one sink; both run in a thread, so that the test may block."""

    def __init__(self, script: Script | None = None) -> None:
        self._script = script
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self.dns = DnsServer()
        self.sink = Sink()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def __enter__(self) -> World:
        self._thread.start()
        self._run(self._open())
        return self

    async def _open(self) -> None:
        self.dns = await self._stack.enter_async_context(DnsServer())
        self.sink = await self._stack.enter_async_context(Sink(script=self._script))
        self.dns.set("*", "MX", ["10 mx.test."])
        self.dns.set("mx.test", "A", ["127.0.0.1"])

    def __exit__(self, *_: object) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for(self, done: Callable[[list[Received]], bool], seconds: float = 60) -> list[Received]:
        """The messages at the sink when `done` says so of them."""

        async def wait() -> list[Received]:
            count = 0
            async with asyncio.timeout(seconds):
                while not done(self.sink.messages):
                    count = max(count, self.sink.received) + 1
                    await self.sink.wait_for(count)
            return list(self.sink.messages)

        found: list[Received] = self._run(wait())
        return found


@dataclass
class Machine:
    """A running `postroom up`."""

    world: World
    folder: pathlib.Path
    environment: dict[str, str]
    ports: dict[str, int]
    up: subprocess.Popen[str]

    def pid(self, service: str) -> int:
        """Of a service process, as it is now."""
        for child in psutil.Process(self.up.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if f"postroom_{service}" in child.cmdline():
                    return child.pid
        raise LookupError(service)

    def kill(self, service: str) -> None:
        """kill -9."""
        os.kill(self.pid(service), signal.SIGKILL)

    def submit(self, content: bytes, recipient: str = "b@x.example", *, implicit: bool = False) -> str:
        """By an authenticated client over TLS; the message id. Raises smtplib.SMTPException, OSError."""
        context = ssl._create_unverified_context()
        made = smtplib.SMTP_SSL("127.0.0.1", self.ports["tls"], timeout=60, context=context) if implicit else None
        with made or smtplib.SMTP("127.0.0.1", self.ports["submission"], timeout=60) as client:
            if not implicit:
                client.starttls(context=context)
            client.login("u", "p")
            client.mail("a@d.example")
            client.rcpt(recipient)
            code, text = client.data(content)
            if code != 250:
                raise smtplib.SMTPResponseException(code, text)
            return text.decode().rsplit(" ", 1)[-1]

    def postroom(self, *arguments: str, status: int = 0) -> str:
        """Another command against this instance."""
        done = subprocess.run([POSTROOM, *arguments], env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr


def free_ports() -> dict[str, int]:
    """Four ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        names = ("submission", "tls", "relay", "http")
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: found.getsockname()[1] for name, found in zip(names, sockets, strict=True)}


@contextlib.contextmanager
def machine(script: Script | None = None) -> Iterator[Machine]:
    """Runs until the block ends; the stop must be clean."""
    with World(script) as world, tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "mail.yaml").write_text(RESOURCES + secret("rsa", RSA) + secret("ed", ED25519))
        environment = {
            **os.environ,
            "POSTROOM_DATA_DIR": str(folder / "data"),
            "POSTROOM_RESOLVERS": world.dns.target,
            "POSTROOM_REMOTE_SMTP_PORT": str(world.sink.port),
            "POSTROOM_ALLOWED_MX_NETWORKS": "127.0.0.0/8",
            "POSTROOM_HOSTNAME": "mta.d.example",
            "POSTROOM_LOG_LEVEL": "warning",
        }
        ports = free_ports()
        command = [str(POSTROOM), "up", str(folder / "mail.yaml"), "--json", "--ports", ",".join(f"{k}={v}" for k, v in ports.items())]
        log = folder / "log"
        with log.open("w") as stderr, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True) as up:
            assert up.stdout is not None
            assert "ready" in up.stdout.readline(), log.read_text()
            try:
                yield Machine(world, folder, environment, ports, up)
            finally:
                up.send_signal(signal.SIGTERM)
                status = up.wait(60)
            assert status == 0, log.read_text()[-3000:]
