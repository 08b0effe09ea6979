"""Several processes of ingress on the same ports: starts them, speaks HTTP for all of them, ends them. Never touches a message.

Each process is a whole ingress with a loop of its own; the kernel divides new connections among them (SO_REUSEPORT), and they count connections
together in a file that this one makes. It adds their metrics up, is ready when all of them are, and passes the request to stop on; each drains by
itself. One that dies is started again while the others go on.
"""

import asyncio
import os
import pathlib
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence

import structlog
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from postroom_core import http
from postroom_core.lifecycle import Stopping
from postroom_core.supervise import Child
from postroom_ingress.headcount import size
from postroom_ingress.settings import Settings

log = structlog.get_logger(__name__)


async def run(settings: Settings, stopping: Stopping) -> None:
    """Until asked to stop and drained. Raises Permanent when the processes cannot run with this configuration."""
    with tempfile.TemporaryDirectory(prefix="postroom-ingress-") as folder:  # mode 0700
        headcount = _headcount(pathlib.Path(folder), settings.ingress_processes)
        sockets = [pathlib.Path(folder) / f"{number}.sock" for number in range(settings.ingress_processes)]
        children = [Child("postroom_ingress", environment(number, socket, headcount)) for number, socket in enumerate(sockets, 1)]
        try:
            async with http.serve(settings.http, application(sockets)), asyncio.TaskGroup() as group:
                running = [group.create_task(child.run()) for child in children]
                waiting = group.create_task(_drain(stopping, children))
                await asyncio.wait(running)
                waiting.cancel()
        finally:
            for child in children:
                child.kill()


def environment(number: int, socket: pathlib.Path, headcount: pathlib.Path) -> dict[str, str]:
    """Of one of the processes: which it is, its own place for HTTP, and where they count together."""
    mine = {"WORKER": str(number), "HEADCOUNT": str(headcount)}
    return {**os.environ, "POSTROOM_HTTP": f"unix:{socket}", **{f"POSTROOM_INGRESS_{name}": value for name, value in mine.items()}}


def _headcount(folder: pathlib.Path, processes: int) -> pathlib.Path:
    path = folder / "headcount"
    with path.open("wb") as file:
        file.write(secrets.token_bytes(16))
        file.truncate(size(processes))
    return path


async def _drain(stopping: Stopping, children: Sequence[Child]) -> None:
    await stopping.wait()
    await asyncio.gather(*(child.stop() for child in children))


def application(sockets: Sequence[pathlib.Path]) -> web.Application:
    """/metrics added up, /healthz of this process, /readyz of all, and the generation of a domain that is in force in every one."""

    async def metrics(_: web.Request) -> web.Response:
        answers = await asyncio.gather(*(http.ask(socket, "/metrics") for socket in sockets))
        return web.Response(text=total(text for status, text in answers if status == 200), content_type="text/plain", charset="utf-8")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        answers = await asyncio.gather(*(http.ask(socket, "/readyz") for socket in sockets))
        faults = [f"process {number}: {text.strip()}" for number, (status, text) in enumerate(answers, 1) if status != 200]
        return web.Response(text="\n".join(faults or ["ok"]) + "\n", status=503 if faults else 200)

    async def generation(request: web.Request) -> web.Response:
        answers = await asyncio.gather(*(http.ask(socket, request.path) for socket in sockets))
        if any(status != 200 for status, _ in answers):
            return web.Response(text="unknown\n", status=404)
        return web.Response(text=f"{min(int(text) for _, text in answers)}\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    app.router.add_get("/generation/{domain}", generation)
    return app


def total(texts: Iterable[str]) -> str:
    """The sum of Postroom's metrics over the processes: counters, histograms, and gauges, all of which count something.

    What a Python process says of itself (memory, garbage collections) has no meaning as a sum and is left out, and so are times of creation. The
    counters of a process that died are gone with it, which Prometheus takes for a reset.
    """
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    kinds: dict[str, tuple[str, str]] = {}
    families: dict[str, list[tuple[str, tuple[tuple[str, str], ...]]]] = defaultdict(list)
    for text in texts:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith("postroom_") or family.name.endswith("_created"):
                continue
            kinds[family.name] = (family.type, family.documentation)
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                if key not in sums:
                    families[family.name].append(key)
                sums[key] += sample.value
    lines = []
    for name, (kind, documentation) in kinds.items():
        named = f"{name}_total" if kind == "counter" else name
        lines += [f"# HELP {named} {documentation}", f"# TYPE {named} {kind}"]
        lines += [f"{sample}{_labels(labels)} {sums[sample, labels]}" for sample, labels in families[name]]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    quoted = ",".join('{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return f"{{{quoted}}}" if quoted else ""
