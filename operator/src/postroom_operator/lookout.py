"""Keeps what DNS shows of each resource's records fresh, beside the reconciles, so that a slow name server never holds one up.

A reconcile names the records it cares for and how fresh; it gets the last look at once, and is woken when a new one differs or was waited for.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from postroom_core.lifecycle import guarded
from postroom_operator.plan.dkim import Seen
from postroom_operator.plan.dns import DnsRecord

CONCURRENT = 16


class Looks(Protocol):
    """Who can look."""

    async def look(self, name: str, rdtype: str, wanted: str, now: datetime) -> Seen:
        """See Authority."""


@dataclass
class _Watch:
    records: dict[tuple[str, str, str], Seen]
    task: asyncio.Task[None] | None = None


class Lookout:
    """The looks of all resources, by uid."""

    def __init__(self, authority: Looks, now: Callable[[], datetime], wake: Callable[[str], None]) -> None:
        self._authority, self._now, self._wake = authority, now, wake
        self._watches: dict[str, _Watch] = {}
        self._slots = asyncio.Semaphore(CONCURRENT)

    def seen(self, uid: str, records: Sequence[DnsRecord], every: timedelta) -> dict[tuple[str, str], Seen]:
        """The last looks by name and type; starts new ones for those older than `every`."""
        watch = self._watches.setdefault(uid, _Watch({}))
        wanted = {(record.name, record.type, record.value) for record in records}
        watch.records = {key: seen for key, seen in watch.records.items() if key in wanted}
        now = self._now()
        stale = [key for key in wanted if key not in watch.records or now - watch.records[key].at >= every]
        if stale and (watch.task is None or watch.task.done()):
            watch.task = asyncio.create_task(self._look(uid, watch, stale))
        return {(name, rdtype): seen for (name, rdtype, _), seen in watch.records.items()}

    def forget(self, uid: str) -> None:
        watch = self._watches.pop(uid, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()

    async def _look(self, uid: str, watch: _Watch, keys: list[tuple[str, str, str]]) -> None:
        for key in keys:
            async with self._slots:
                seen = await guarded("look at DNS", self._authority.look(*key, self._now()))
            if seen is not None:
                watch.records[key] = seen
        self._wake(uid)
