"""A real etcd and a real Kubernetes API server on loopback, without controllers, scheduler and kubelet: what tests of CRDs and of the operator need.

The binary is one for both (etcd and the API server as subcommands); POSTROOM_KUBE names it, else it is looked for in the cluster's cache.
Authorization is RBAC: `token` is an administrator's. Every request that writes is in the audit log.
"""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

BINARY = pathlib.Path(os.environ.get("POSTROOM_KUBE", pathlib.Path.home() / ".cache" / "cluster" / "bin" / "kube"))
START_SECONDS = 60.0  # 4 s on an idle machine
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]}, {"level": "None"}],
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclasses.dataclass
class ApiServer:
    """A running one. `request` speaks JSON; `kubeconfig` is a file for everybody else."""

    folder: pathlib.Path
    port: int
    token: str
    _local: threading.local = dataclasses.field(default_factory=threading.local, repr=False)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> pathlib.Path:
        return self.folder / "kubeconfig"

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """Status and decoded answer; errors of the API are answers too."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        try:
            return self._asked(method, path, content, headers)
        except ConnectionError:  # a kept connection that the server has closed meanwhile, or no server
            return self._asked(method, path, content, headers)

    def _asked(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> tuple[int, Any]:
        """By one connection for each thread: thousands of handshakes would take longer than what is tested."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=ssl._create_unverified_context())
        try:
            self._local.connection.request(method, path, content, headers)
            answer = self._local.connection.getresponse()
            return answer.status, _decoded(answer.read())
        except (OSError, http.client.HTTPException):
            self._local.connection.close()
            raise

    def get(self, path: str) -> Any:
        """The object at a path; None when there is none."""
        status, found = self.request("GET", path)
        if status == 404:
            return None
        assert status == 200, found
        return found

    def apply(self, path: str, body: Any, manager: str = "test") -> Any:
        """Server-side apply; the object as it is now."""
        status, found = self.request("PATCH", f"{path}?fieldManager={manager}&force=true", body, "application/apply-patch+yaml")
        assert status in (200, 201), found
        return found

    def writes(self) -> list[dict[str, Any]]:
        """The audited writes so far."""
        path = self.folder / "audit.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _decoded(content: bytes) -> Any:
    return json.loads(content) if content.startswith(b"{") else content.decode()


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[ApiServer]:
    """Starts both, waits until the API is ready, ends both."""
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    (folder / "audit.yaml").write_text(json.dumps(_AUDIT))
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True, timeout=30)
    subprocess.run(
        ["openssl", "rsa", "-in", str(folder / "sa.key"), "-pubout", "-out", str(folder / "sa.pub")], check=True, capture_output=True, timeout=30
    )
    server = ApiServer(folder, port, token)
    _kubeconfig(server)
    client, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    etcd = ["etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client, "--unsafe-no-fsync"]
    etcd += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    api = ["kube-apiserver", f"--etcd-servers={client}", f"--cert-dir={folder / 'pki'}", f"--secure-port={port}", "--bind-address=127.0.0.1"]
    api += [
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
    ]
    api += [f"--service-account-signing-key-file={folder / 'sa.key'}", "--service-account-issuer=https://kubernetes.default.svc"]
    api += ["--authorization-mode=RBAC", f"--audit-policy-file={folder / 'audit.yaml'}", f"--audit-log-path={folder / 'audit.log'}"]
    api += ["--audit-log-mode=blocking", "--endpoint-reconciler-type=none"]
    with contextlib.ExitStack() as stack:
        for name, command in (("etcd", etcd), ("apiserver", api)):
            stack.enter_context(_process(command, folder / f"{name}.log"))
        _wait(server)
        yield server


def _kubeconfig(server: ApiServer) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "admin", "user": {"token": server.token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "admin"}}],
        "current-context": "c",
    }
    server.kubeconfig.write_text(json.dumps(content))


@contextlib.contextmanager
def _process(command: list[str], log: pathlib.Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([str(BINARY), *command], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: ApiServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if server.request("GET", "/readyz")[0] == 200 and server.get("/api/v1/namespaces/default") is not None:
                return
        time.sleep(0.1)
    raise AssertionError(f"the API server is not ready; see {server.folder}:\n{(server.folder / 'apiserver.log').read_text()[-2000:]}")


def install_crds(server: ApiServer, documents: list[dict[str, Any]]) -> None:
    """Applies CRDs and waits until they are served."""
    for crd in documents:
        server.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}", crd)
    deadline = time.monotonic() + 30
    for crd in documents:
        path = f"/apis/{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}/{crd['spec']['names']['plural']}"
        while server.request("GET", path)[0] != 200:
            assert time.monotonic() < deadline, f"{path} is not served"
            time.sleep(0.05)
