"""Tokens of Kubernetes ServiceAccounts as passwords: checks signature, issuer, audience and times, says whose token it is (OpenID Connect).

The issuer's public keys come from a file, from a URL, or by discovery (ISSUER/.well-known/openid-configuration). They are kept, fetched anew when
they grow old or a token names a key that is not among them, and never more often than a token with an invented key could make us. While they
cannot be fetched the kept ones go on; without any, the answer is *later*. A token is never stored or logged.
"""

import asyncio
import json
import pathlib
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt
import structlog

from postroom_core.clock import Clock
from postroom_core.errors import Unavailable

log = structlog.get_logger(__name__)
# Keys of a cluster change once in months; new ones are published before they sign.
KEEP_SECONDS = 600.0
# An unknown key id may be a new key. Whoever invents key ids makes us ask this often, not more.
ASK_AGAIN_SECONDS = 30.0
FETCH_SECONDS = 5.0
MOST_OCTETS = 256 * 1024
# Clocks of a cluster differ by less.
LEEWAY_SECONDS = 30
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"]
_SUBJECT = "system:serviceaccount"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens count. `keys` is a path, a URL, or "" for discovery.

    `ca_file` verifies the URL's server, "" is the system's; `bearer_file` holds a token to ask with.
    """

    issuer: str
    audience: str
    keys: str = ""
    ca_file: str = ""
    bearer_file: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A ServiceAccount."""

    namespace: str
    name: str


class Tokens:
    """One for the process."""

    def __init__(self, issuer: Issuer, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def subject(self, token: str) -> Subject | None:
        """The ServiceAccount of a valid token, None of any other. Raises Unavailable when the keys cannot be had."""
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid", ""))
        except jwt.PyJWTError:
            return None
        key = await self._key(key_id)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._issuer.audience,
                issuer=self._issuer.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError:
            return None
        system, _, account = str(claims["sub"]).rpartition(":")
        prefix, _, namespace = system.rpartition(":")
        return Subject(namespace, account) if prefix == _SUBJECT and namespace and account else None

    async def _key(self, key_id: str) -> jwt.PyJWK | None:
        async with self._fetching:
            now = self._clock.monotonic()
            old = now - self._fetched_at > KEEP_SECONDS
            if (old or key_id not in self._keys) and now - self._asked_at > ASK_AGAIN_SECONDS:
                self._asked_at = now
                await self._refresh(now)
        if not self._keys:
            raise Unavailable("the keys of the token issuer cannot be had")
        return self._keys.get(key_id)

    async def _refresh(self, now: float) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await self._document()
            found = jwt.PyJWKSet.from_dict(document).keys
            self._keys, self._fetched_at = {key.key_id or "": key for key in found}, now
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError, KeyError, jwt.PyJWTError) as error:
            # The texts of such errors show addresses at most; the kind is enough.
            log.warning("keys of the token issuer not fetched", reason=type(error).__name__, kept=len(self._keys))

    async def _document(self) -> dict[str, Any]:
        keys = self._issuer.keys
        if keys and not keys.startswith("https://") and not keys.startswith("http://"):
            return _parse(await asyncio.to_thread(_read, keys))
        context = ssl.create_default_context(cafile=self._issuer.ca_file or None)
        headers = {"Authorization": f"Bearer {_read(self._issuer.bearer_file).decode().strip()}"} if self._issuer.bearer_file else {}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), headers=headers) as session:
            if not keys:
                discovered = await _get(session, f"{self._issuer.issuer.rstrip('/')}/.well-known/openid-configuration")
                if discovered.get("issuer") != self._issuer.issuer:
                    raise ValueError("the issuer calls itself something else")
                keys = str(discovered["jwks_uri"])
            return await _get(session, keys)


def _read(path: str) -> bytes:
    with pathlib.Path(path).open("rb") as file:
        return file.read(MOST_OCTETS)


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as response:
        response.raise_for_status()
        content = b""
        async for block in response.content.iter_chunked(64 * 1024):
            content += block
            if len(content) > MOST_OCTETS:
                raise ValueError("the answer is too long")
    return _parse(content)


def _parse(content: bytes) -> dict[str, Any]:
    document = json.loads(content)
    if not isinstance(document, dict):
        raise TypeError("not a JSON object")
    return document
