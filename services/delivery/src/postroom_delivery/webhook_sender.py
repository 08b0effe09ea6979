"""Tells webhooks what happens: reads events, posts them, keeps how far each target is. I/O only; postroom_delivery.webhooks decides.

One process of all that share a spool does this, by a duty that it renews: LEASE_MS after it died another one goes on from the same cursors. A
request begins only while the duty surely lasts longer than the request can take, so two processes never tell one target at the same time.
Nobody waits for a webhook: events are committed long before they are read here.
"""

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Gauge
from yarl import URL

from postroom_core.clock import Clock
from postroom_core.documents import SenderDomain
from postroom_core.errors import Transient, Unavailable
from postroom_core.lifecycle import finish, supervised
from postroom_core.snapshot import Snapshot
from postroom_delivery import webhooks
from postroom_delivery.https import Https
from postroom_delivery.spool.hooks import HookEvent, HookState
from postroom_delivery.spool.interface import Hooks
from postroom_delivery.webhooks import Answer, Batch, Target

log = structlog.get_logger(__name__)
REQUESTS = Counter("postroom_delivery_webhook_requests", "Requests to webhooks by what came of them", ["outcome"])
FAILING = Gauge("postroom_delivery_webhooks_failing", "Webhooks whose last request failed")
DUTY = "webhooks"
LEASE_MS = 60_000
RENEW_SECONDS = LEASE_MS / 3000
# A receiver stores and answers; who computes first is told to answer first. The duty must outlast it by far.
REQUEST_SECONDS = 15.0
# What is new is told within this; a look costs one read of the reading connection for all targets together.
PAUSE_SECONDS = 1.0
# A cursor that only passed over events of others is kept this often: after a crash those are looked at again, which nobody sees.
KEEP_SECONDS = 30.0
# Sockets and buffers at one time, also when a thousand targets are slow.
MOST_REQUESTS = 32
# Some hundred KiB each: who is a little behind the others still shares their reads.
MOST_PAGES = 16


class Feed:
    """Pages of events, read once for all targets that are at the same place."""

    def __init__(self, spool: Hooks, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._lock = asyncio.Lock()
        self._pages: OrderedDict[int, Sequence[HookEvent]] = OrderedDict()
        self._end, self._end_until = -1, 0.0

    async def after(self, cursor: int) -> Sequence[HookEvent]:
        """The events behind the cursor; empty at the end, which may be some tenths of a second old."""
        async with self._lock:
            if cursor in self._pages:
                return self._pages[cursor]
            if cursor == self._end and self._clock.monotonic() < self._end_until:
                return ()
            page = await self._spool.hook_events(cursor)
            if not page:
                self._end, self._end_until = cursor, self._clock.monotonic() + PAUSE_SECONDS / 2
                return ()
            self._pages[cursor] = page
            if len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return page


class Webhooks:
    """Subscribe `replace` to the directory, and `run`."""

    def __init__(self, spool: Hooks, https: Https, clock: Clock) -> None:
        self._spool = spool
        self._https = https
        self._clock = clock
        self._targets: dict[str, Target] = {}
        self._changed = asyncio.Event()
        self._room = asyncio.Semaphore(MOST_REQUESTS)
        self._held_until = 0.0
        self._failing: set[str] = set()

    def replace(self, snapshot: Snapshot) -> None:
        self._targets = webhooks.targets(snapshot.of(SenderDomain).values())
        self._changed.set()

    @property
    def targets(self) -> dict[str, Target]:
        """By name, as the directory has them now."""
        return self._targets

    async def run(self) -> None:
        """Until cancelled. Without webhooks it costs nothing."""
        while True:
            if self._targets and await self._hold():
                await self._serve()
            await self._pause(RENEW_SECONDS)

    async def _hold(self) -> bool:
        asked = self._clock.monotonic()
        held = await self._spool.hold_duty(self._clock.now_ms(), DUTY, LEASE_MS)
        self._held_until = asked + LEASE_MS / 1000 if held else 0.0
        return held

    async def _serve(self) -> None:
        """One task per target while the duty is ours."""
        feed = Feed(self._spool, self._clock)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while self._targets and await self._hold():
                tasks = {name: task for name, task in tasks.items() if not task.done()}
                for name in self._targets.keys() - tasks.keys():
                    tasks[name] = asyncio.create_task(supervised("webhook", lambda name=name: self._follow(name, feed)))  # type: ignore[misc]
                await self._pause(RENEW_SECONDS)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            self._held_until = 0.0
            self._failing.clear()
            FAILING.set(0)
            with contextlib.suppress(Unavailable):
                await self._spool.hold_duty(self._clock.now_ms(), DUTY, -1)  # nobody need wait for its end

    async def _pause(self, seconds: float) -> None:
        """Until the targets change, or so long. The clock's sleep is not used: this only bounds how late a change is seen."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return

    async def _follow(self, name: str, feed: Feed) -> None:
        """Tells one target, until it is no target any more."""
        state = await self._spool.hook(name)
        kept_at = self._clock.monotonic()
        while (target := self._targets.get(name)) is not None:
            now = self._clock.now_ms()
            if state.next_at > now:
                await self._clock.sleep(min((state.next_at - now) / 1000, PAUSE_SECONDS))
                continue
            page = await feed.after(state.cursor)
            if not page and not state.upto:
                await self._clock.sleep(PAUSE_SECONDS)
                continue
            chosen = webhooks.batch(page, target, state, now)
            if chosen.events:
                async with self._room:
                    # A request that was begun is ended and its answer kept, also when we stop: else the next process would tell it all again.
                    state = await finish(self._tell(target, state, chosen))
                continue
            moved = webhooks.after(state, chosen, None, now, 0)
            if moved.lost != state.lost or self._clock.monotonic() - kept_at > KEEP_SECONDS:
                await self._keep(moved)
                kept_at = self._clock.monotonic()
            state = moved

    async def _tell(self, target: Target, state: HookState, chosen: Batch) -> HookState:
        """The state after one request."""
        if self._held_until - self._clock.monotonic() < REQUEST_SECONDS:
            raise Unavailable("the duty to tell webhooks is not renewed")
        content = webhooks.body(chosen)
        answer = await self._post(target, content, webhooks.headers(target, chosen, content, self._clock.now_ms()))
        moved = webhooks.after(state, chosen, answer, self._clock.now_ms(), random.random())
        self._observe(target.name, state, moved)
        await self._keep(moved)
        return moved

    async def _post(self, target: Target, content: bytes, headers: dict[str, str]) -> Answer:
        try:
            status, wish = await self._https.post(URL(target.webhook.url, encoded=True), content, headers, seconds=REQUEST_SECONDS)
        except Transient as error:
            return Answer(0, str(error)[:200])
        return Answer(status, wait_ms=int(wish) * 1000 if wish.isascii() and wish.isdigit() and len(wish) < 6 else 0)

    def _observe(self, name: str, before: HookState, state: HookState) -> None:
        REQUESTS.labels("failed" if state.failures else "taken").inc()
        if state.failures:
            self._failing.add(name)
        else:
            self._failing.discard(name)
        FAILING.set(len(self._failing))
        now = self._clock.now_ms()
        health = webhooks.health(state, now)
        if health != webhooks.health(before, before.last_at):
            log.warning("a webhook changed", webhook=name, health=health, reason=state.last_text, lost=state.lost)

    async def _keep(self, state: HookState) -> None:
        if not await self._spool.move_hook(DUTY, state):
            self._held_until = 0.0
            raise Unavailable("another process tells the webhooks now")
