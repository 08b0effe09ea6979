"""A small Kubernetes API for Secrets: list with pages, watch with bookmarks, and every fault that a real one shows at the worst moment.

What it answers without faults is held to the real API by test_directory.py, whose cases run against both.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

PAGE = 3  # whatever the client asks for: pages must be followed


class FakeApi:
    """`faults` are taken one per request: a status code, or hang, gone, garbage, drop for a watch."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.history: list[tuple[int, dict[str, Any]]] = []
        self.oldest = 0  # resource versions before this are gone
        self.faults: list[str | int] = []
        self.requests: list[str] = []
        self.closed = asyncio.Event()
        self._changed = asyncio.Event()
        self._connections: set[web.StreamResponse] = set()

    def put(self, name: str, document: bytes, labels: dict[str, str]) -> None:
        self.version += 1
        kind = "MODIFIED" if name in self.secrets else "ADDED"
        metadata = {"name": name, "labels": labels, "resourceVersion": str(self.version)}
        self.secrets[name] = {"metadata": metadata, "data": {"document": base64.b64encode(document).decode()}}
        self._record(kind, self.secrets[name])

    def delete(self, name: str) -> None:
        self.version += 1
        gone = self.secrets.pop(name)
        self._record("DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}})

    def forget(self) -> None:
        """Compaction: whoever asks for a version from before now hears 410."""
        self.version += 1
        self.oldest = self.version
        self.history.clear()

    def _record(self, kind: str, secret: dict[str, Any]) -> None:
        self.history.append((self.version, {"type": kind, "object": secret}))
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def cut(self) -> None:
        """Ends every open watch as a proxy does that is restarted."""
        for response in self._connections:
            if response._req is not None and response._req.transport is not None:
                response._req.transport.abort()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        watching = request.query.get("watch") == "true"
        self.requests.append("watch" if watching else "list")
        fault = self.faults.pop(0) if self.faults else ""
        if isinstance(fault, int):
            return web.json_response({"kind": "Status", "code": fault}, status=fault, headers={"Retry-After": "1"} if fault == 429 else None)
        if fault == "hang":
            await self.closed.wait()
        label, _, value = request.query["labelSelector"].partition("=")
        return await self._watch(request, label, value, str(fault)) if watching else self._list(request, label, value)

    def _list(self, request: web.Request, label: str, value: str) -> web.Response:
        names = sorted(name for name, secret in self.secrets.items() if secret["metadata"]["labels"].get(label) == value)
        start = int(request.query.get("continue", "0"))
        more = str(start + PAGE) if start + PAGE < len(names) else ""
        items = [self.secrets[name] for name in names[start : start + PAGE]]
        return web.json_response({"metadata": {"resourceVersion": str(self.version), "continue": more}, "items": items})

    async def _watch(self, request: web.Request, label: str, value: str, fault: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if fault == "gone" or since < self.oldest:
            await _send(response, {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
            return response
        if fault == "garbage":
            await response.write(b'{"type": "ADD\n')
        if fault in ("garbage", "drop"):
            return response
        self._connections.add(response)
        try:
            await self._events(response, since, (label, value))
        except (ConnectionError, OSError):
            pass
        finally:
            self._connections.discard(response)
        return response

    async def _events(self, response: web.StreamResponse, since: int, label: tuple[str, str]) -> None:
        while not self.closed.is_set():
            changed = self._changed
            for version, event in list(self.history):
                if version > since and event["object"]["metadata"]["labels"].get(label[0]) == label[1]:
                    line = json.dumps(event).encode() + b"\n"
                    await response.write(line[:20])  # events arrive in pieces
                    await response.write(line[20:])
            since = self.version
            await _send(response, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(since)}}})
            await changed.wait()


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(json.dumps(event).encode() + b"\n")


@contextlib.asynccontextmanager
async def running(api: FakeApi) -> AsyncIterator[str]:
    """Serves `api`; its URL."""
    application = web.Application()
    application.add_routes([web.get("/api/v1/namespaces/{namespace}/secrets", api.handle)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        api.closed.set()
        api.wake()
        await runner.cleanup()
