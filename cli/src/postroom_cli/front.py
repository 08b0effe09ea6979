"""The HTTP port of one machine: asks the services over their unix sockets and answers for all of them. Keeps nothing."""

import asyncio
import ipaddress
import json
import pathlib
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from postroom_core import http

# Longer than ingress may take for the body and the commit.
PASS_ON_SECONDS = 400.0
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host", "content-length"})


async def is_ready(socket: pathlib.Path) -> bool:
    return (await http.ask(socket, "/readyz"))[0] == 200


def application(sockets: Mapping[str, pathlib.Path], api: pathlib.Path) -> web.Application:
    """/metrics of all services, /healthz of this process, /readyz of everything; /v1 is passed on to ingress at `api`, for this machine alone."""

    async def metrics(_: web.Request) -> web.Response:
        answers = await asyncio.gather(*(http.ask(socket, "/metrics") for socket in sockets.values()))
        return web.Response(text="".join(_own(text) for status, text in answers if status == 200), content_type="text/plain", charset="utf-8")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        answers = await asyncio.gather(*(http.ask(socket, "/readyz") for socket in sockets.values()))
        faults = [f"{name}: {text.strip()}" for name, (status, text) in zip(sockets, answers, strict=True) if status != 200]
        return web.Response(text="\n".join(faults or ["ok"]) + "\n", status=503 if faults else 200)

    async def submission(request: web.Request) -> web.StreamResponse:
        return await _pass_on(request, api)

    app = web.Application(client_max_size=0)  # nothing is read here as a whole; ingress bounds what it takes
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz), web.route("*", "/v1/{path:.*}", submission)]
    )
    return app


async def _pass_on(request: web.Request, api: pathlib.Path) -> web.StreamResponse:
    """A request to ingress and its answer back, both as they come. From elsewhere it is refused: this port has no TLS."""
    if not _is_local(request.remote):
        detail = "credentials never go in clear: this port takes mail from this machine alone"
        text = json.dumps({"title": "Not allowed", "status": 403, "detail": detail, "code": ""})
        return web.Response(status=403, text=text, content_type="application/problem+json")
    kept = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    timeout = aiohttp.ClientTimeout(total=PASS_ON_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api)), timeout=timeout, auto_decompress=False) as session,
            session.request(
                request.method, f"http://ingress{request.path_qs}", headers=kept, data=request.content if request.can_read_body else None
            ) as answer,
        ):
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=headers, body=await answer.read())
    except (aiohttp.ClientError, OSError, TimeoutError):
        detail = json.dumps({"title": "Not now", "status": 503, "detail": "ingress does not answer", "code": ""})
        return web.Response(status=503, headers={"Retry-After": "5"}, text=detail, content_type="application/problem+json")


def _is_local(address: str | None) -> bool:
    try:
        return address is not None and ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _own(text: str) -> str:
    """The service's own metrics: those of its Python runtime have the same names in every service and would collide."""
    lines = [line for line in text.splitlines() if "postroom_" in line.split("{")[0]]
    return "".join(f"{line}\n" for line in lines)
