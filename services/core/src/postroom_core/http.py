"""The HTTP side door of a service: /metrics, /healthz (the loop answers), /readyz (it can do its work). Never part of a message's path."""

import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

# A process that is busy for longer is not ready.
ASK_SECONDS = 2.0


async def ask(where: pathlib.Path | str, path: str) -> tuple[int, str]:
    """(status, text) of the side door at a unix socket or ADDRESS:PORT; 0 when it does not answer."""
    connector = aiohttp.UnixConnector(str(where)) if isinstance(where, pathlib.Path) else None
    host = "service" if isinstance(where, pathlib.Path) else where
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as session,
            session.get(f"http://{host}{path}") as response,
        ):
            return response.status, await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0, "no answer"


def application(ready: Callable[[], str], dead: Callable[[], str] = lambda: "") -> web.Application:
    """`ready` gives "" when the service can work, else the reason why not; `dead` likewise, when only a restart helps."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        reason = dead()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def readyz(_: web.Request) -> web.Response:
        reason = ready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


@contextlib.asynccontextmanager
async def serve(where: str, app: web.Application) -> AsyncIterator[None]:
    """Serves `app` at ADDRESS:PORT or unix:PATH; "" serves nothing. Raises OSError when the place is taken."""
    if not where:
        yield
        return
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        if where.startswith("unix:"):
            path = pathlib.Path(where.removeprefix("unix:"))
            path.unlink(missing_ok=True)
            await web.UnixSite(runner, str(path)).start()
        else:
            address, _, port = where.rpartition(":")
            await web.TCPSite(runner, address.strip("[]"), int(port)).start()
        yield
    finally:
        await runner.cleanup()
