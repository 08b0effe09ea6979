"""An installation in a Kubernetes cluster, as the commands reach it: by the command kubectl and its kubeconfig, whatever way of login that has.

The queue is asked by gRPC through a port-forward to a delivery pod, with the certificate `cli` of the platform, which whoever may read Secrets
in its namespace may use. Nothing is written to the cluster; the certificate is in a private folder while a command runs.
"""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from postroom_core.errors import Permanent, Unavailable

Object = dict[str, Any]
SECONDS = 20.0
GRPC_PORT = 7443
POOL = "mail.postroom.dev/pool"
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class Forward:
    """A local way to a pod: `target` for gRPC and the folder of the certificate to use."""

    target: str
    tls: pathlib.Path


@dataclass(frozen=True, slots=True)
class Installation:
    """What the user named; empty is to be found out."""

    context: str = ""
    namespace: str = ""
    pool: str = ""

    @property
    def may_come_back(self) -> bool:
        """A pod that is away is started again."""
        return True

    async def get(self, kind: str, *arguments: str, namespace: str = "") -> list[Object]:
        """Objects as JSON; of all namespaces when none is named. Raises Unavailable and Permanent with kubectl's own words."""
        where = ["-n", namespace] if namespace else ["-A"]
        answer = json.loads(await self._kubectl("get", kind, *where, "-o", "json", *arguments))
        found: list[Object] = answer.get("items", [answer])
        return found

    @contextlib.asynccontextmanager
    async def forward(self) -> AsyncIterator[Forward]:
        """To a delivery pod of the pool that is ready. Raises Unavailable when there is none, Permanent when the pool is not clear."""
        namespace, release = await self._find()
        pod = await self._pod(namespace)
        with tempfile.TemporaryDirectory(prefix="postroom-") as folder:
            tls = pathlib.Path(folder)
            await self._certificate(namespace, f"{release}-cli-tls", tls)
            process = await self._start("port-forward", "-n", namespace, f"pod/{pod}", f":{GRPC_PORT}", "--address=127.0.0.1")
            try:
                yield Forward(f"ipv4:127.0.0.1:{await _port(process)}", tls)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()

    async def _find(self) -> tuple[str, str]:
        """Namespace and release."""
        selector = "app.kubernetes.io/name=postroom,app.kubernetes.io/component=ingress"
        found = [deployment["metadata"] for deployment in await self.get("deployments", "-l", selector, namespace=self.namespace)]
        if len(found) != 1:
            names = ", ".join(sorted(metadata["namespace"] for metadata in found))
            raise Permanent(f"several installations, name one by --namespace: {names}" if found else "no Postroom in this cluster or namespace")
        return found[0]["namespace"], found[0]["name"].removesuffix("-ingress")

    async def _pod(self, namespace: str) -> str:
        pods = await self.get("pods", "-l", f"app.kubernetes.io/component=delivery,{POOL}", namespace=namespace)
        pools = sorted({pod["metadata"]["labels"][POOL] for pod in pods})
        wanted = [pool for pool in pools if self.pool in ("", pool, pool.removesuffix("-delivery"))]
        if len(wanted) != 1:
            raise Permanent(
                f"name a pool by --pool: {', '.join(pools)}" if pools else f"there is no delivery in {namespace}; is there a SendingPool?"
            )
        for pod in pods:
            conditions = {condition["type"]: condition["status"] for condition in pod.get("status", {}).get("conditions", [])}
            if pod["metadata"]["labels"][POOL] == wanted[0] and conditions.get("Ready") == "True":
                return str(pod["metadata"]["name"])
        raise Unavailable(f"no pod of {wanted[0]} is ready")

    async def _certificate(self, namespace: str, name: str, folder: pathlib.Path) -> None:
        [secret] = await self.get("secret", name, namespace=namespace)
        for field in ("tls.crt", "tls.key", "ca.crt"):
            with os.fdopen(os.open(folder / field, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(base64.b64decode(secret["data"][field]))

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        command = shutil.which("kubectl")
        if command is None:
            raise Permanent("the command kubectl is not installed")
        chosen = [f"--context={self.context}"] if self.context else []
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(command, *chosen, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)

    async def _kubectl(self, *arguments: str) -> str:
        process = await self._start(*arguments, f"--request-timeout={SECONDS:.0f}s")
        out, err = await process.communicate()
        if process.returncode:
            words = err.decode("utf-8", "replace").strip()
            raise (Permanent if "NotFound" in words or "Forbidden" in words else Unavailable)(f"kubectl: {words}")
        return out.decode()


async def _port(process: asyncio.subprocess.Process) -> int:
    """The local port of a port-forward that has begun."""
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            while line := await process.stdout.readline():
                if found := _FORWARDING.search(line.decode()):
                    return int(found[1])
            raise Unavailable(f"kubectl: {(await process.stderr.read()).decode('utf-8', 'replace').strip()}")
    except TimeoutError:
        raise Unavailable("kubectl port-forward does not begin") from None
