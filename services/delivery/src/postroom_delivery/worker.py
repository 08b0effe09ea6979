"""A worker: one connection slot, one session, batch after batch. Joins scheduler, hop, attempt and settle; the only place that calls all four.

For every message: attempt → verdict → commit, at once, so that a crash repeats as little as possible. The next message's dialogue begins while
that commit is on its way, one at most: what a crash leaves without its result was recorded as in doubt before the dot. What was not tried goes
back untouched.
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import structlog
from prometheus_client import Counter, Histogram

from postroom_core.clock import Clock
from postroom_core.documents import Pool
from postroom_core.errors import Unavailable
from postroom_core.lifecycle import finish, guarded
from postroom_core.telemetry import span
from postroom_delivery import attempt, routing, security, settle
from postroom_delivery.bounce import MOST_RETURNED, Original
from postroom_delivery.classify import Action, Class
from postroom_delivery.hop import Hops
from postroom_delivery.outcome import Bounced, Deferred, Delivered, Outcome, Released, later
from postroom_delivery.pools import Pools
from postroom_delivery.scheduler import Scheduler
from postroom_delivery.security import Demand
from postroom_delivery.session import Session
from postroom_delivery.signing import Signing
from postroom_delivery.sites import Sites
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Batch, Claim, ClaimedMessage, LostLease, Settlement, State
from postroom_delivery.spool.tls_tally import TlsSession
from postroom_delivery.suppression import Suppressions
from postroom_delivery.verp import Verp

log = structlog.get_logger(__name__)
OUTCOMES = Counter("postroom_delivery_recipients", "Recipients by the outcome of an attempt", ["outcome", "reason"])
LATENCY = Histogram(
    "postroom_delivery_seconds", "From the acceptance of a message to its delivery", buckets=(0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600, 86400)
)
ALERTS = Counter("postroom_delivery_alerts", "Replies that no retry mends: blocklists, failing authentication, wrong DNS of ours", ["reason"])
INSIST_SECONDS = 1.0  # between attempts to record a result
LOST_LEASES = Counter("postroom_delivery_lost_leases", "Attempts given up because another worker has the lease")
# A destination with one of these is left alone for the pool's first back-off: more connections would make it worse.
_BLOCKING = (Class.NETWORK, Class.THROTTLE)


@dataclass(frozen=True, slots=True)
class Parts:
    """What every worker shares."""

    spool: Spool
    pools: Pools
    sites: Sites
    hops: Hops
    clock: Clock
    own_name: str
    signing: Signing
    suppressions: Suppressions
    verp: Verp
    tls_reports: bool


class Worker:
    """Made for one batch; lives as long as its connection is worth it."""

    def __init__(self, parts: Parts, first: Batch) -> None:
        self._parts = parts
        self._first = first
        self._pool: Pool = parts.pools.get(first.key.pool)
        self._session: Session | None = None
        self._target = ""
        self._block_seconds = 0.0
        self._commit: asyncio.Task[None] | None = None
        self._tls: list[TlsSession] = []

    async def run(self, scheduler: Scheduler) -> None:
        """Until there is no more work for this connection."""
        most = self._parts.pools.limits(self._first.key).batch
        batch: Batch | None = self._first
        try:
            while batch is not None:
                await self._batch(batch, scheduler)
                await self._committed()
                key, batch = batch.key, None
                batch = await scheduler.more(key) if self._session is not None and self._session.messages < most else None
        finally:
            await finish(self._leave(scheduler, batch))

    async def _leave(self, scheduler: Scheduler, unfinished: Batch | None) -> None:
        """However the worker ends, its connection's slot comes back, and so does what it has not settled: its process goes on renewing the leases."""
        now = self._parts.clock.now_ms()
        blocked_until = now + int(self._block_seconds * 1000) if self._block_seconds else 0
        try:
            await self._committed()
        finally:
            if self._session is not None:
                await self._session.quit()  # before the slot is given back, or the next connection would be one too many
            # A process that ends gives everything back by ending.
            await self._insist(functools.partial(self._parts.spool.release_slot, now, self._first, blocked_until), lambda: scheduler.draining)
            if unfinished is not None:
                claims = [claim for message in unfinished.messages for claim in message.claims]
                # Not at once: what made this worker fail may make the next one fail, too.
                due_at = now + int(self._pool.retry.initial * 1000)
                await self._insist(functools.partial(self._parts.spool.give_back, now, claims, due_at), lambda: scheduler.draining)

    async def _batch(self, batch: Batch, scheduler: Scheduler) -> None:
        self._pool = self._parts.pools.get(batch.key.pool)
        for message in sorted(batch.messages, key=lambda message: self._targets(batch, message)[0]):
            if scheduler.draining or self._block_seconds:
                await self._settle(batch, message, attempt.released(message))
                continue
            with span("attempt", message.traceparent, message_id=message.id):
                await self._message(batch, message)

    async def _message(self, batch: Batch, message: ClaimedMessage) -> None:
        for domain in dict.fromkeys(_domain(claim) for claim in message.claims):
            await self._parts.sites.look(domain)
        moved = [claim for claim in message.claims if self._belongs_elsewhere(batch, claim)]
        if moved:
            await self._move(batch, moved)
            message = _without(message, moved)
            if not message.claims:
                return
        if refused := await self._parts.suppressions.refused(message):
            await self._settle(batch, replace(message, claims=tuple(refused)), refused)
            message = _without(message, list(refused))
        for target in self._targets(batch, message):
            others = [claim for claim in message.claims if self._target_of(batch, claim) != target]
            await self._one_target(batch, _without(message, others), target)

    async def _one_target(self, batch: Batch, message: ClaimedMessage, target: str) -> None:
        try:
            outcomes = await guarded("attempt", self._attempt(message, target))
        except LostLease:
            LOST_LEASES.inc()
            log.warning("lease lost before the final dot; nothing was sent", message_id=message.id)
            self._drop_session()
            return
        if outcomes is None:  # a poison message: it counts as an attempt, so it ends by expiry at the latest
            self._drop_session()
            outcomes = dict.fromkeys(message.claims, later("4.3.0", "internal error, see the log of delivery", Class.OTHER))
        await self._settle(batch, message, outcomes)

    def _destination(self, batch: Batch, claim: Claim) -> str:
        return self._parts.pools.destination(batch.key.pool, _domain(claim))

    def _belongs_elsewhere(self, batch: Batch, claim: Claim) -> bool:
        """From one site to another nothing moves: MX records that change with every answer would move mail for ever."""
        here, place = batch.key.destination, self._destination(batch, claim)
        settled = routing.is_site(here) and (routing.is_site(place) or self._parts.sites.known(_domain(claim)) is None)
        return place != here and not settled

    def _target_of(self, batch: Batch, claim: Claim) -> str:
        """What a connection is opened for: the smart-host route, or the recipient's domain, whose TLS policy is its own at any site."""
        return batch.key.destination if routing.route_named(self._pool, batch.key.destination) else _domain(claim)

    def _targets(self, batch: Batch, message: ClaimedMessage) -> list[str]:
        return list(dict.fromkeys(self._target_of(batch, claim) for claim in message.claims))

    async def _move(self, batch: Batch, claims: list[Claim]) -> None:
        """The site was not known when the message was accepted, or routes have changed since: recipients go where they belong now."""
        now = self._parts.clock.now_ms()
        moves = [Settlement(c, State.SCHEDULED, None, due_at=now, attempted=False, destination=self._destination(batch, c)) for c in claims]
        await self._parts.spool.settle(now, moves, ())

    async def _attempt(self, message: ClaimedMessage, target: str) -> Mapping[Claim, Outcome]:
        if late := settle.too_late(message, self._parts.clock.now_ms()):
            return dict.fromkeys(message.claims, late)
        signed = await self._parts.signing.signed(message)
        if isinstance(signed, Deferred):
            return dict.fromkeys(message.claims, signed)
        outcomes: dict[Claim, Outcome] = {}
        for part in await self._parts.verp.split(signed, self._parts.pools.sender(message.domain)):
            session = await self._session_for(target, security.demand_of(message.options))
            if not isinstance(session, Session):
                if isinstance(session, Deferred) and session.cause.classification in _BLOCKING:
                    self._block(self._pool.retry.initial)
                return dict.fromkeys(message.claims, session) | outcomes
            outcomes |= await self._transmit(session, part, target)
            if attempt.ends_session(outcomes):
                self._block(self._pool.retry.initial)
                return attempt.released(message) | outcomes
        return outcomes

    async def _transmit(self, session: Session, message: ClaimedMessage, target: str) -> Mapping[Claim, Outcome]:
        parts = self._parts
        try:
            return await attempt.Attempt(session, message, parts.spool.doubt, parts.spool.body, parts.clock.now_ms()).run()
        except attempt.StaleSession:  # at most once for a message: a new connection is never stale
            self._drop_session()
        opened = await self._session_for(target, security.demand_of(message.options))
        return await self._transmit(opened, message, target) if isinstance(opened, Session) else dict.fromkeys(message.claims, opened)

    def _block(self, seconds: float) -> None:
        """Leaves the destination alone for a while once this worker has left."""
        self._block_seconds = max(self._block_seconds, seconds)

    async def _session_for(self, target: str, demand: Demand) -> Session | Deferred | Bounced:
        if self._session is not None and self._session.usable and self._target == target and security.serves(self._session.demand, demand):
            return self._session
        if self._session is not None:
            await self._session.quit()
            self._session = None
        opened = await self._parts.hops.open(self._pool, target, demand, self._tls.append if self._parts.tls_reports else lambda _: None)
        if isinstance(opened, Session):
            self._session, self._target = opened, target
        return opened

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.abort()
            self._session = None

    async def _settle(self, batch: Batch, message: ClaimedMessage, outcomes: Mapping[Claim, Outcome]) -> None:
        session, now = self._session, self._parts.clock.now_ms()
        context = settle.Context(
            now=now,
            pool=self._pool,
            own_name=self._parts.own_name,
            jitter=random.random(),
            remote=str(session.host) if session is not None else "",
            tls=session.security if session is not None else "",
        )
        verdict = settle.decide(message, outcomes, context)
        notices = settle.notices(await self._origin(message), verdict.reports, context) if verdict.reports else []
        if verdict.asks(Action.REDUCE_RATE):
            self._block(self._pool.retry.initial)
            await self._parts.spool.throttle(now, batch.key)
        if verdict.asks(Action.SUSPEND):
            self._block(self._pool.retry.maximum)
        await self._committed()
        sessions, self._tls = self._tls, []
        record = functools.partial(self._parts.spool.settle, now, verdict.settlements, notices, sessions)
        self._commit = asyncio.create_task(self._record(message, verdict, record, now))

    async def _record(self, message: ClaimedMessage, verdict: settle.Verdict, record: Callable[[], Awaitable[None]], now: int) -> None:
        clock = self._parts.clock
        lease_ends = clock.monotonic() + self._parts.spool.lease_ms / 1000  # what is not recorded by then becomes a second copy
        try:
            await self._insist(record, lambda: clock.monotonic() >= lease_ends)
        except LostLease:
            LOST_LEASES.inc()
            log.warning("lease lost before the result was recorded; another worker has the message", message_id=message.id)
            return
        self._tell(message, verdict, now)

    async def _insist(self, record: Callable[[], Awaitable[object]], in_vain: Callable[[], bool]) -> None:
        """Commits, however long the spool is away, until trying is `in_vain`. Raises Unavailable then."""
        while True:
            try:
                await record()
                return
            except Unavailable as error:
                if in_vain():
                    raise
                log.warning("spool unavailable, a result waits to be recorded", reason=str(error))
                await self._parts.clock.sleep(INSIST_SECONDS)

    async def _committed(self) -> None:
        """Waits for the commit of the last result, which no cancellation cuts. Raises Unavailable."""
        commit, self._commit = self._commit, None
        if commit is not None:
            await finish(commit)

    async def _origin(self, message: ClaimedMessage) -> settle.Origin:
        body, options = None, message.options
        # Binary content would need BINARYMIME on the way back, and what demanded TLS is not returned (RFC 8689 section 5).
        if message.ret == "FULL" and message.body_size <= MOST_RETURNED and not options.binary and not options.require_tls:
            body = message.body if message.body is not None else b"".join([chunk async for chunk in self._parts.spool.body(message.id)])
        original = Original(message.id, message.reverse_path, message.envid, message.received_at, message.headers, body, smtputf8=options.smtputf8)
        author, sign = self._parts.signing.author(self._parts.pools.sender(message.domain))
        destination = self._parts.pools.destination(self._pool.name, original.reverse_path.rpartition("@")[2])
        return settle.Origin(original, author, message.tenant, message.domain, destination, sign=sign, require_tls=options.require_tls)

    def _tell(self, message: ClaimedMessage, verdict: settle.Verdict, now: int) -> None:
        for judged in verdict.judged.values():
            outcome = judged.outcome
            if judged.action is Action.ALERT and isinstance(outcome, (Deferred, Bounced)):
                ALERTS.labels(outcome.cause.classification.value).inc()
                log.warning(
                    "a reply that somebody must act on, see the message's events",
                    message_id=message.id,
                    destination=self._first.key.destination,
                    reason=outcome.cause.classification.value,
                )
            match outcome:
                case Delivered():
                    OUTCOMES.labels("delivered", Class.SUCCESS.value).inc()
                    LATENCY.observe((now - message.received_at) / 1000)
                case Deferred() | Bounced():
                    kind = "bounced" if isinstance(outcome, Bounced) else "ambiguous" if outcome.ambiguous else "deferred"
                    OUTCOMES.labels(kind, outcome.cause.classification.value).inc()
                case Released():
                    OUTCOMES.labels("released", "").inc()


def _without(message: ClaimedMessage, gone: list[Claim]) -> ClaimedMessage:
    return replace(message, claims=tuple(claim for claim in message.claims if claim not in gone))


def _domain(claim: Claim) -> str:
    return claim.address.rpartition("@")[2]
