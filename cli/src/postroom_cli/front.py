"""The HTTP port of one machine: asks the services over their unix sockets and answers for all of them. Keeps nothing."""

import asyncio
import pathlib
from collections.abc import Mapping

import aiohttp
from aiohttp import web

# A service that is busy for longer is not ready.
ASK_SECONDS = 2.0


async def ask(socket: pathlib.Path, path: str) -> tuple[int, str]:
    """(status, text) of a service; 0 when it does not answer."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as session,
            session.get(f"http://service{path}") as response,
        ):
            return response.status, await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0, "no answer"


async def is_ready(socket: pathlib.Path) -> bool:
    return (await ask(socket, "/readyz"))[0] == 200


def application(sockets: Mapping[str, pathlib.Path]) -> web.Application:
    """/metrics of all services, /healthz of this process, /readyz of everything."""

    async def metrics(_: web.Request) -> web.Response:
        answers = await asyncio.gather(*(ask(socket, "/metrics") for socket in sockets.values()))
        return web.Response(text="".join(_own(text) for status, text in answers if status == 200), content_type="text/plain", charset="utf-8")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        answers = await asyncio.gather(*(ask(socket, "/readyz") for socket in sockets.values()))
        faults = [f"{name}: {text.strip()}" for name, (status, text) in zip(sockets, answers, strict=True) if status != 200]
        return web.Response(text="\n".join(faults or ["ok"]) + "\n", status=503 if faults else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


def _own(text: str) -> str:
    """The service's own metrics: those of its Python runtime have the same names in every service and would collide."""
    lines = [line for line in text.splitlines() if "postroom_" in line.split("{")[0]]
    return "".join(f"{line}\n" for line in lines)
