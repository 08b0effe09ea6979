"""The MTA-STS policies in force: looked up by DNS, fetched by HTTPS, kept in memory and in the spool (RFC 8461 section 3.3). I/O; `sts` decides.

A policy that was fetched once binds until its max_age has passed, whatever DNS or the policy host say or do not say later; it is kept in the spool,
so that neither a restart nor a new pod forgets it. A domain without a policy, or whose first fetch fails, has none.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable

import structlog
from yarl import URL

from postroom_core.clock import Clock
from postroom_core.errors import Transient
from postroom_delivery import sts
from postroom_delivery.https import BadCertificate, Https
from postroom_delivery.resolver import Resolver
from postroom_delivery.spool.interface import Memory
from postroom_delivery.sts import BadPolicy, Kept, Policy

log = structlog.get_logger(__name__)
Fetch = Callable[[str], Awaitable[str]]
# RFC 8461 section 3.3: 64 KiB and one minute are the limits that it suggests.
MOST_OCTETS = 64 * 1024
FETCH_SECONDS = 60.0
# Domains in memory, some KiB each at the worst; the spool has them all.
MOST_KNOWN = 10_000
MEMORY = "mta-sts"


def fetcher(https: Https, port: int) -> Fetch:
    """Fetches the text of a domain's policy, at the well-known place (section 3.2). What it returns raises Transient."""

    async def fetch(domain: str) -> str:
        url = URL.build(scheme="https", host=f"mta-sts.{domain}", port=port, path="/.well-known/mta-sts.txt")
        return (await https.get(url, content_type="text/plain", limit=MOST_OCTETS, seconds=FETCH_SECONDS)).decode("utf-8", "replace")

    return fetch


class StsPolicies:
    """One for the process."""

    def __init__(self, resolver: Resolver, fetch: Fetch, memory: Memory, clock: Clock) -> None:
        self._resolver = resolver
        self._fetch = fetch
        self._memory = memory
        self._clock = clock
        self._known: dict[str, Kept | None] = {}
        self._failed_until: dict[str, float] = {}
        self._fetching: dict[str, asyncio.Task[Kept | None]] = {}
        self._trouble: dict[str, str] = {}

    def trouble(self, domain: str) -> str:
        """Why the last fetch failed, as a result type of RFC 8460 section 4.3.2.2; "" when it did not, or none was tried."""
        return self._trouble.get(domain, "")

    def __repr__(self) -> str:
        return f"StsPolicies(known={len(self._known)}, fetching={len(self._fetching)})"

    async def of(self, domain: str) -> Policy | None:
        """The policy that binds now, None when there is none. Raises Unavailable of the spool."""
        try:
            record = sts.record_id(await self._resolver.txt(f"_mta-sts.{domain}"))
        except Transient:
            record = None
        if record is None:
            self._trouble.pop(domain, None)
        kept, now = await self._kept(domain), self._clock.now_ms()  # after the wait: another may have fetched meanwhile
        if kept is not None and now >= kept.until:
            kept = None
        must_fetch = record is not None and not (kept is not None and kept.is_current(record, now))
        if record is not None and must_fetch and self._clock.monotonic() >= self._failed_until.get(domain, 0.0):
            kept = await self._fetched(domain, record) or kept
        return kept.policy if kept is not None else None

    async def _kept(self, domain: str) -> Kept | None:
        if domain not in self._known:
            stored = await self._memory.recall(self._clock.now_ms(), MEMORY, domain)
            self._learn(domain, _decoded(stored) if stored is not None else None)
        return self._known[domain]

    def _learn(self, domain: str, kept: Kept | None) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
            self._failed_until.clear()
            self._trouble.clear()
        self._known[domain] = kept

    async def _fetched(self, domain: str, record: str) -> Kept | None:
        """One fetch for all who wait for it; a waiter that is cancelled does not end it."""
        task = self._fetching.get(domain)
        if task is None:
            task = self._fetching[domain] = asyncio.create_task(self._refresh(domain, record))
            task.add_done_callback(lambda _: self._fetching.pop(domain))
        return await asyncio.shield(task)

    async def _refresh(self, domain: str, record: str) -> Kept | None:
        try:
            text = await self._fetch(domain)
            kept = Kept(sts.parse(text), record, text, self._clock.now_ms())
        except (Transient, BadPolicy) as error:
            log.warning("MTA-STS policy not fetched, an earlier one stays in force", domain=domain, reason=str(error))
            self._failed_until[domain] = self._clock.monotonic() + sts.RETRY_SECONDS
            self._trouble[domain] = _result(error)
            return None
        self._trouble.pop(domain, None)
        await self._memory.remember(self._clock.now_ms(), MEMORY, domain, _encoded(kept), kept.until)
        self._learn(domain, kept)
        return kept


def _result(error: Exception) -> str:
    if isinstance(error, BadPolicy):
        return "sts-policy-invalid"
    return "sts-webpki-invalid" if isinstance(error, BadCertificate) else "sts-policy-fetch-error"


def _encoded(kept: Kept) -> str:
    return json.dumps({"id": kept.id, "text": kept.text, "fetched_at": kept.fetched_at})


def _decoded(stored: str) -> Kept | None:
    try:
        values = json.loads(stored)
        return Kept(sts.parse(values["text"]), values["id"], values["text"], values["fetched_at"])
    except (ValueError, KeyError, TypeError):  # written by another version: fetched anew
        return None
