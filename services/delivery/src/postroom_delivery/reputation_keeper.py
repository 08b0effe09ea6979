"""Looks at what senders' mail came to, and keeps the curbs that postroom_delivery.reputation decides on. I/O only.

One process of all that share a spool looks, by a duty; every process reads the curbs and refuses by them where messages come in.
"""

import structlog
from prometheus_client import Gauge

from postroom_core.clock import Clock
from postroom_core.documents import Reputation
from postroom_core.reply import Reply
from postroom_delivery import reputation
from postroom_delivery.pools import Pools
from postroom_delivery.reputation import Sender
from postroom_delivery.spool.curbs import Curb
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Allowance, EventDetail
from postroom_delivery.spool.rollup import HOUR_MS

log = structlog.get_logger(__name__)
CURBED = Gauge("postroom_delivery_senders_curbed", "Senders by what is done about them", ["level"])
DUTY = "reputation"
LEASE_MS = 60_000
# Roll-ups are two seconds behind; a wave of spam is stopped within half a minute, and a look reads some thousand rows at most.
LOOK_SECONDS = 15.0
# A curb is in force in every process within this.
POLL_SECONDS = 2.0
MAILER_DAEMON = "mailer-daemon"
_BY = ("tenant", "domain", "credential", "pool")


class Curbs:
    """`follow` keeps what is in force, `look` decides anew; the others are asked for each message."""

    def __init__(self, spool: Spool, pools: Pools, clock: Clock) -> None:
        self._spool = spool
        self._pools = pools
        self._clock = clock
        self._curbs: dict[str, Curb] = {}

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await self.refresh()
            await self._clock.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Takes up what any process has kept."""
        self._curbs = {curb.name: curb for curb in await self._spool.curbs()}
        now = self._clock.now_ms()
        for level in reputation.LEVELS[1:]:
            CURBED.labels(level).set(sum(reputation.in_force(curb, now) == level for curb in self._curbs.values()))

    async def keep(self) -> None:
        """Looks for ever, while no other process does."""
        while True:
            if await self._spool.hold_duty(self._clock.now_ms(), DUTY, LEASE_MS):
                await self.look()
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Judges every sender once."""
        now = self._clock.now_ms()
        hour = now - now % HOUR_MS
        since = hour - (reputation.WINDOW_HOURS - 1) * HOUR_MS
        facts = await self._spool.facts((HOUR_MS, since, now + 1), (*_BY, "class"), {})
        usual = await self._spool.facts((HOUR_MS, since - reputation.USUAL_HOURS * HOUR_MS, since), _BY, {})
        found = reputation.counts([fact for fact in facts if fact[0][2] != MAILER_DAEMON], usual)
        curbs = {curb.name: curb for curb in await self._spool.curbs()}
        changed = reputation.decide(found, curbs, self._policy, now)
        told = {curb.name for curb in reputation.changes(curbs, changed)}
        for curb in changed:
            await self._set(now, curb, tell=curb.name in told)

    @property
    def all(self) -> list[Curb]:
        """As of the last refresh, by name; ended ones too."""
        return [self._curbs[name] for name in sorted(self._curbs)]

    async def resume(self, name: str, spare_ms: int) -> Curb | None:
        """Ends a curb by command; None when there is none."""
        now = self._clock.now_ms()
        curb = {curb.name: curb for curb in await self._spool.curbs()}.get(name)
        if curb is None:
            return None
        curb = reputation.resumed(curb, spare_ms, now)
        await self._set(now, curb, tell=True)
        await self.refresh()
        return curb

    def refusal(self, sender: Sender) -> Reply | None:
        """The reply to a message of a paused sender."""
        return reputation.refusal(self._curbs, sender, self._clock.now_ms())

    def allowances(self, sender: Sender) -> tuple[Allowance, ...]:
        """What a message of a slowed sender counts against."""
        return reputation.allowances(self._curbs, sender, self._clock.now_ms())

    def _policy(self, pool: str) -> Reputation:
        return self._pools.get(pool).reputation

    async def _set(self, now: int, curb: Curb, *, tell: bool) -> None:
        event = EventDetail(reputation.EVENTS[curb.level], text=curb.text, classification="") if tell else None
        await self._spool.set_curb(now, curb, event)
        if tell:
            log.warning("a sender's standing changed", sender=curb.name, level=curb.level, reason=curb.text)
