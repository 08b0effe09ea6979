"""HTTPS to hosts that strangers name: MTA-STS policies and webhooks. Thin: one request, bounded in octets and time, no redirect, no cookie, no proxy.

P8: the name is resolved once, by delivery's own resolver; each address is vetted, and what was vetted is what is dialled (A15). A host that is an
address literal is refused, because nothing but a name can have a certificate that says something.
"""

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from postroom_core.errors import PostroomError, Transient
from postroom_delivery.resolver import Resolver

MayDial = Callable[[str], bool]


def context(ca_file: str) -> ssl.SSLContext:
    """Verifies chain and name against the bundle; "" is certifi's."""
    made = ssl.create_default_context(cafile=ca_file or certifi.where())
    made.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    return made


class BadCertificate(Transient):
    """The host's certificate could not be verified."""


class Https:
    """Shared by all requests; holds no connection."""

    def __init__(self, resolver: Resolver, may_dial: MayDial, verified: ssl.SSLContext) -> None:
        self._resolver = resolver
        self._may_dial = may_dial
        self._verified = verified

    async def get(self, url: URL, *, content_type: str, limit: int, seconds: float) -> bytes:
        """The body of a 200 with that media type and at most `limit` octets, within `seconds`. Raises Transient with the reason."""
        try:
            async with asyncio.timeout(seconds), self._session(url) as session, session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise Transient(f"{url.host} answered with status {response.status}")
                if response.content_type != content_type:
                    raise Transient(f"{url.host} sent {response.content_type[:50]}, not {content_type}")
                return await _bounded(response, limit)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _fault(url, error) from error

    async def post(self, url: URL, content: bytes, headers: Mapping[str, str], *, seconds: float) -> tuple[int, str]:
        """(status, Retry-After) of the answer, whose body is not read. Raises Transient with the reason when there is none within `seconds`."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._session(url) as session,
                session.post(url, data=content, headers=headers, allow_redirects=False) as response,
            ):
                return response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _fault(url, error) from error

    def _session(self, url: URL) -> aiohttp.ClientSession:
        if url.scheme != "https" or not url.host or _is_literal(url.host):
            raise Transient(f"{url.host or 'nothing'} is no host name for HTTPS")
        connector = aiohttp.TCPConnector(resolver=_Vetting(self._resolver, self._may_dial), ssl=self._verified, use_dns_cache=False, force_close=True)
        # Undecoded: a compressed bomb is as large as it is on the wire.
        headers = {"Accept-Encoding": "identity", "User-Agent": "Postroom"}
        return aiohttp.ClientSession(connector=connector, headers=headers, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


class _Vetting(AbstractResolver):
    """Gives aiohttp literal addresses, and only those that may be dialled."""

    def __init__(self, resolver: Resolver, may_dial: MayDial) -> None:
        self._resolver = resolver
        self._may_dial = may_dial

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        try:
            addresses = (await self._resolver.addresses(host)).addresses
        except PostroomError as error:
            raise OSError(errno.EHOSTUNREACH, str(error)) from error
        good = [address for address in addresses if self._may_dial(address)]
        if not good:
            raise OSError(errno.EACCES, f"{host} leads to addresses that may not be dialled" if addresses else f"{host} has no address")
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=families[ipaddress.ip_address(address).version], proto=0, flags=socket.AI_NUMERICHOST
            )
            for address in good
        ]

    async def close(self) -> None:
        return None


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > limit:
            raise Transient(f"{response.url.host} sent more than {limit} octets")
    return bytes(body)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _fault(url: URL, error: Exception) -> Transient:
    kind = BadCertificate if isinstance(error, aiohttp.ClientConnectorCertificateError) else Transient
    return kind(f"{url.host}: {'no answer in time' if isinstance(error, TimeoutError) else str(error) or type(error).__name__}")
