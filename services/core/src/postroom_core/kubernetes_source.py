"""The directory's source `kubernetes`: Secrets with a label in one namespace, listed once and then watched; one document each, data key `document`.

The API may be away, slow, or tell that history is gone at any moment: the last snapshot stays in force and the watch is taken up where it
ended. One Secret that holds no valid document keeps its last valid one, or is left out; it never stops the others. Writes nothing.
"""

import asyncio
import base64
import binascii
import json
import os
import pathlib
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from prometheus_client import Counter, Gauge
from pydantic import ValidationError

from postroom_core.documents import ADAPTER, AnyDocument
from postroom_core.errors import Permanent, Transient
from postroom_core.snapshot import Snapshot

log = structlog.get_logger(__name__)
CONTACT = Gauge("postroom_directory_contact_seconds", "Unix time of the last word from the Kubernetes API")
INVALID = Counter("postroom_directory_invalid", "Secrets that held no valid document")

SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
DOCUMENT = "document"
# A page of Secrets of at most 1 MiB each; 500 is what kubectl asks for.
PAGE = 500
LIST_SECONDS = 60.0
CONNECT_SECONDS = 10.0
# The server ends a watch after this; all replicas at other times, so that they do not come back together.
WATCH_SECONDS = (240, 300)
# Bookmarks come about once a minute: a connection that is silent for longer is half-open and is given up.
SILENCE_SECONDS = 90.0
# An object of etcd has 1.5 MiB at most, base64 and metadata around it; a longer line is no event.
MOST_LINE = 4 * 1024 * 1024
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# A change must be in force within 2 s once the API is back; what an overloaded server asks for is bounded likewise.
MOST_RETRY_AFTER = 60.0


class _Gone(Exception):
    """The resource version is too old: list again."""


@dataclass(frozen=True, slots=True)
class Api:
    """Where the Kubernetes API is and how to speak to it. The token is read anew for each request, because it is renewed in place."""

    url: str
    token: pathlib.Path | None = None
    context: ssl.SSLContext | None = None

    @classmethod
    def of_pod(cls, environment: Mapping[str, str] = os.environ, account: pathlib.Path = SERVICE_ACCOUNT) -> "Api":
        """Of the pod that we run in. Raises Permanent outside of one."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (account / "token").exists():
            raise Permanent("the directory source kubernetes: works in a pod with a mounted service account only")
        address = f"[{host}]" if ":" in host else host
        return cls(f"https://{address}:{port}", account / "token", ssl.create_default_context(cafile=str(account / "ca.crt")))

    def headers(self) -> dict[str, str]:
        found = {"Accept": "application/json", "User-Agent": "postroom-directory"}
        if self.token is not None:
            found["Authorization"] = f"Bearer {self.token.read_text().strip()}"
        return found


class KubernetesSource:
    """See the module. `run` must be running for `load` to give anything new."""

    def __init__(self, api: Api, namespace: str, selector: str) -> None:
        self._api = api
        self._path = f"{api.url}/api/v1/namespaces/{namespace}/secrets"
        self._selector = selector
        self._held: dict[str, tuple[str, AnyDocument | None]] = {}  # Secret → (raw document, what it was read to)
        self._resource_version = ""
        self._version = ""
        self._pause = FIRST_PAUSE
        self._told = ""

    def changed(self, version: str) -> bool:
        return self._version not in ("", version)

    def load(self) -> Snapshot:
        if not self._version:
            raise Transient("the Kubernetes API has not answered yet")
        return Snapshot(self._version, (document for _, (_, document) in sorted(self._held.items()) if document is not None))

    async def run(self) -> None:
        """Keeps what `load` gives fresh, for ever."""
        while True:
            after = 0.0
            try:
                async with self._session() as session:
                    await self._follow(session)
            except _Gone:
                self._resource_version = ""
            except (aiohttp.ClientError, TimeoutError, OSError, Transient) as error:
                after = _retry_after(error)
                self._tell(f"{type(error).__name__}: {error}")
            await asyncio.sleep(max(after, self._pause * random.uniform(0.5, 1.0)))
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        # trust_env stays off: the API is never behind the proxy that an image may name.
        return aiohttp.ClientSession(timeout=timeout, trust_env=False, raise_for_status=_raise_for_status)

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        while True:
            if not self._resource_version:
                async with asyncio.timeout(LIST_SECONDS):
                    await self._list(session)
            async for event in self._watch(session):
                self._event(event)

    def _heard(self) -> None:
        CONTACT.set_to_current_time()
        self._pause = FIRST_PAUSE
        self._told = ""

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            log.warning("the Kubernetes API does not answer, the last directory stays", reason=reason)

    # List

    async def _list(self, session: aiohttp.ClientSession) -> None:
        found: dict[str, tuple[str, AnyDocument | None]] = {}
        query = {"labelSelector": self._selector, "limit": str(PAGE)}
        while True:
            async with session.get(self._path, params=query, headers=self._api.headers(), ssl=self._api.context or True) as response:
                page = await response.json()
            for item in page["items"]:
                name = item["metadata"]["name"]
                found[name] = self._read(name, item)
            if not (more := page["metadata"].get("continue")):
                break
            query["continue"] = more
        self._resource_version = page["metadata"]["resourceVersion"]
        if found != self._held or not self._version:
            self._held = found
            self._version = self._resource_version
        self._heard()

    # Watch

    async def _watch(self, session: aiohttp.ClientSession) -> AsyncIterator[dict[str, Any]]:
        query = {
            "labelSelector": self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._resource_version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),
        }
        async with session.get(self._path, params=query, headers=self._api.headers(), ssl=self._api.context or True) as response:
            self._heard()
            rest = b""
            async for block in response.content.iter_any():
                *lines, rest = (rest + block).split(b"\n")
                if len(rest) > MOST_LINE:
                    raise Transient("a line of the watch is too long")
                for line in lines:
                    if line.strip():
                        yield _parsed(line)

    def _event(self, event: dict[str, Any]) -> None:
        kind, found = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            if found.get("code") == 410:
                raise _Gone
            raise Transient(f"the watch ended with {found.get('code')} {found.get('reason')}")
        name, version = found["metadata"].get("name", ""), found["metadata"]["resourceVersion"]
        if kind in ("ADDED", "MODIFIED"):
            held = self._read(name, found)
            if held != self._held.get(name):
                self._held[name] = held
                self._version = version
        elif kind == "DELETED" and self._held.pop(name, None) is not None:
            self._version = version
        self._resource_version = version
        self._heard()

    def _read(self, name: str, secret: dict[str, Any]) -> tuple[str, AnyDocument | None]:
        raw = (secret.get("data") or {}).get(DOCUMENT, "")
        last = self._held.get(name)
        if last is not None and last[0] == raw:
            return last
        try:
            return raw, ADAPTER.validate_json(base64.b64decode(raw, validate=True))
        except (ValidationError, binascii.Error) as error:
            # A validation error's own text shows its input, which may be a key: name the fields only.
            fields = (
                [".".join(str(part) for part in item["loc"]) for item in error.errors(include_input=False)]
                if isinstance(error, ValidationError)
                else []
            )
            INVALID.inc()
            log.error("a Secret holds no valid directory document, its last valid one stays", secret=name, fields=fields[:10])
            return raw, last[1] if last is not None else None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    except ValueError:
        pass
    raise Transient("the watch sent something that is no event")


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status == 410:
        raise _Gone
    response.raise_for_status()


def _retry_after(error: BaseException) -> float:
    headers = getattr(error, "headers", None) or {}
    text = headers.get("Retry-After", "")
    return min(float(text), MOST_RETRY_AFTER) if text.isdigit() else 0.0
