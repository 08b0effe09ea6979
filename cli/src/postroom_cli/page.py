"""The service page of one machine: gives `postroom_web` the command's gRPC client, the plan's records and `postroom check`; keeps the tokens.

Two tokens are made at the first start and kept in the data folder, 0600: one to act, one to look.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from postroom_cli import targets
from postroom_cli.clients import connected
from postroom_cli.layout import Layout
from postroom_cli.store import write
from postroom_core.clock import SystemClock
from postroom_insight import check
from postroom_insight.finding import Finding
from postroom_insight.lookups import Lookups
from postroom_operator.plan.dns import DnsRecord
from postroom_web.app import Page
from postroom_web.login import Gate, Role
from postroom_web.source import DomainRecord, Source

# A check asks some fifty questions of other people's servers: reloading the page must not repeat them.
CHECK_MS = 30_000


def tokens(layout: Layout) -> dict[Role, str]:
    """Of this data folder; made when they are absent."""
    found = {}
    for role in Role:
        path = layout.token(role.value)
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write(path, secrets.token_urlsafe(24), 0o600)
        found[role] = path.read_text().strip()
    return found


@dataclass
class Checks:
    """`postroom check` for the page: one at a time, and an answer is good for half a minute."""

    layout: Layout
    own_name: str
    servers: Sequence[str]
    _kept: dict[str, tuple[int, list[Finding]]] = field(default_factory=dict)
    _room: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, domain: str) -> list[Finding]:
        async with self._room:
            now = SystemClock().now_ms()
            at, findings = self._kept.get(domain, (-CHECK_MS, []))
            if now - at >= CHECK_MS:
                findings = await check.run(targets.target(self.layout, domain, self.own_name), Lookups(self.servers))
                self._kept[domain] = (now, findings)
            return findings


def page(checks: Checks, records: Callable[[], Mapping[str, Sequence[DnsRecord]]]) -> Page:
    """`records` are those of the plan in force."""

    def domains() -> dict[str, list[DomainRecord]]:
        return {
            name: [DomainRecord(record.name, record.type, record.value, record.required, record.purpose) for record in found]
            for name, found in records().items()
        }

    source = Source(lambda: connected(checks.layout), domains, checks, SystemClock().now_ms)
    return Page(source, Gate(tokens(checks.layout)))
