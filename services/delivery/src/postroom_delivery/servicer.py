"""gRPC servicers of delivery: thin; wire → spool → wire. Enqueue is where a message enters the spool (P1).

Once the last chunk has arrived the commit runs to its end even if the caller goes away: the outcome must not depend on a socket. Before that, a
stream that ends leaves nothing behind.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import structlog
from grpc import aio
from prometheus_client import Counter, Histogram

from postroom.v1 import queue_pb2, queue_pb2_grpc, spool_pb2, spool_pb2_grpc
from postroom_core.clock import Clock
from postroom_core.errors import Unavailable
from postroom_core.ids import is_message_id
from postroom_core.lifecycle import finish
from postroom_core.reply import Reply
from postroom_delivery import retry, routing, settle, wire
from postroom_delivery.bounce import Original, Report
from postroom_delivery.classify import Class
from postroom_delivery.outcome import Cause
from postroom_delivery.pools import Pools
from postroom_delivery.reputation import Sender
from postroom_delivery.reputation_keeper import Curbs
from postroom_delivery.signing import Signing
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import (
    OPEN_STATES,
    Claim,
    DeadLetter,
    Key,
    ListFilter,
    LostLease,
    MessageRow,
    Notice,
    RecipientRow,
    Settlement,
    State,
)
from postroom_delivery.spool.rollup import campaign

log = structlog.get_logger(__name__)
ACCEPTED = Counter("postroom_delivery_accepted", "Messages committed to the spool", ["outcome"])
ACCEPT_SECONDS = Histogram(
    "postroom_delivery_accept_seconds", "From the last chunk to the commit", buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
)

Context = aio.ServicerContext[Any, Any]
Chosen = tuple[MessageRow, list[RecipientRow]]  # what an action means of a message
MOST_CHUNK = 64 * 1024
FULL = Reply(452, "4.3.1", "The queue has no room now, try again later")
AWAY = Reply(451, "4.3.0", "The queue is not available now, try again later")
MOST_LISTED = 1000
# An action on many goes by pages, each one transaction: accepts wait behind it, and its messages with their header blocks are in memory.
PAGE = 100
# After this long the caller gets what was done so far and asks again: a call that lasts for minutes would be lost with its connection.
ANSWER_SECONDS = 0.4
EVENT_PAGE = 500


class SpoolServicer(spool_pb2_grpc.SpoolServicer):
    """What ingress hands over."""

    def __init__(self, spool: Spool, pools: Pools, clock: Clock, curbs: Curbs, campaign_header: str = "") -> None:
        self._spool = spool
        self._curbs = curbs
        self._campaign_header = campaign_header
        self._pools = pools
        self._clock = clock

    async def Enqueue(self, request_iterator: AsyncIterator[spool_pb2.EnqueueChunk], context: Context) -> spool_pb2.EnqueueResponse:
        if not self._spool.has_room():
            return wire.refused(FULL)
        envelope: spool_pb2.Envelope | None = None
        sequence, complete = 0, False
        try:
            async for chunk in request_iterator:
                envelope = chunk.envelope if chunk.HasField("envelope") else envelope
                if envelope is None or not is_message_id(envelope.message_id) or len(chunk.body) > MOST_CHUNK:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first chunk carries the envelope; a body chunk has 64 KiB at most")
                    raise AssertionError
                if chunk.HasField("end"):
                    complete = True
                    return await finish(self._accept(envelope, chunk, sequence))
                await self._spool.stage(envelope.message_id, sequence, chunk.body)
                sequence += 1
        except Unavailable as error:
            return self._unavailable(error)
        finally:
            if envelope is not None and sequence and not complete:
                await finish(self._spool.discard(envelope.message_id))
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream ended without its end chunk")
        raise AssertionError

    async def EnqueueBatch(self, request: spool_pb2.EnqueueBatchRequest, context: Context) -> spool_pb2.EnqueueBatchResponse:
        if not self._spool.has_room():
            return spool_pb2.EnqueueBatchResponse(responses=[wire.refused(FULL)] * len(request.messages))
        responses = await asyncio.gather(*(self._whole(chunk) for chunk in request.messages))
        return spool_pb2.EnqueueBatchResponse(responses=responses)

    async def _whole(self, chunk: spool_pb2.EnqueueChunk) -> spool_pb2.EnqueueResponse:
        """One message of a batch; its fault is its own."""
        if not chunk.HasField("end") or not is_message_id(chunk.envelope.message_id) or len(chunk.body) > MOST_CHUNK:
            return wire.refused(Reply(554, "5.6.0", "The hand-over of the message was malformed"))
        try:
            return await finish(self._accept(chunk.envelope, chunk, 0))
        except Unavailable as error:
            return self._unavailable(error)

    def _unavailable(self, error: Unavailable) -> spool_pb2.EnqueueResponse:
        log.warning("message not accepted, the spool is unavailable", reason=str(error))
        return wire.refused(FULL if "full" in str(error) else AWAY)

    async def _accept(self, envelope: spool_pb2.Envelope, chunk: spool_pb2.EnqueueChunk, sequence: int) -> spool_pb2.EnqueueResponse:
        if envelope.pool not in self._pools:
            ACCEPTED.labels("no-pool").inc()
            return wire.refused(Reply(451, "4.3.5", "The sending pool of this domain is not ready, try again later"))
        sender = Sender(envelope.tenant, envelope.domain, envelope.credential)
        if (paused := self._curbs.refusal(sender)) is not None:
            ACCEPTED.labels("paused").inc()
            return wire.refused(paused)
        destinations = {r.address: self._pools.destination(envelope.pool, r.address.rpartition("@")[2]) for r in envelope.recipients}
        expires = retry.expires_at(max(envelope.received_at_ms, envelope.options.hold_until_ms), self._pools.get(envelope.pool).retry)
        with ACCEPT_SECONDS.time():
            named = campaign(chunk.end.header_block, self._campaign_header)
            message = wire.message(envelope, chunk.end, destinations, expires, named)
            tenants = self._pools.allowances(message.pool, message.tenant, len(message.recipients))
            counted = message.allowances + tenants + self._curbs.allowances(sender)
            refusal = await self._spool.accept(replace(message, allowances=counted), (sequence, chunk.body))
        ACCEPTED.labels("refused" if refusal else "accepted").inc()
        return wire.refused(refusal) if refusal else wire.accepted(envelope.message_id)


class QueueServicer(queue_pb2_grpc.QueueServicer):
    """What people ask and do."""

    def __init__(self, spool: Spool, pools: Pools, clock: Clock, own_name: str, signing: Signing) -> None:
        self._spool = spool
        self._pools = pools
        self._clock = clock
        self._own_name = own_name
        self._signing = signing

    async def List(self, request: queue_pb2.ListRequest, context: Context) -> queue_pb2.ListResponse:
        rows = await self._spool.list_messages(wire.list_filter(request, MOST_LISTED))
        return queue_pb2.ListResponse(messages=[wire.summary(row) for row in rows])

    async def Show(self, request: queue_pb2.ShowRequest, context: Context) -> queue_pb2.MessageDetail:
        row = await self._spool.show(request.message_id)
        if row is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no message {request.message_id}")
            raise AssertionError
        return wire.detail(row, headers=request.headers)

    async def Events(self, request: queue_pb2.EventsRequest, context: Context) -> AsyncIterator[queue_pb2.Event]:
        after = request.after
        while True:
            rows = await self._spool.events(request.message_id, after, EVENT_PAGE)
            for row in rows:
                yield wire.event(row)
                after = row.number
            if not rows and not request.follow:
                return
            if len(rows) < EVENT_PAGE:
                # Polling, because several followers may share the spool; half a second is live enough for people.
                await asyncio.sleep(0.2 if request.follow else 0)

    async def Act(self, request: queue_pb2.ActRequest, context: Context) -> queue_pb2.ActResponse:
        if not request.all and not request.message_ids:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name message ids, or all")
        which = wire.chosen(request, PAGE)
        changed = 0
        for start in range(0, len(request.message_ids), PAGE):
            named = [await self._spool.show(message_id) for message_id in request.message_ids[start : start + PAGE]]
            changed += await self._act(request.action, [row for row in named if row is not None], which)
        ends = self._clock.monotonic() + ANSWER_SECONDS
        while request.all:
            rows = await self._spool.list_messages(which)
            changed += await self._act(request.action, rows, which)
            if len(rows) < which.limit:
                break
            which = replace(which, after=rows[-1].id)
            if self._clock.monotonic() >= ends:
                return queue_pb2.ActResponse(changed=changed, next=which.after)
        return queue_pb2.ActResponse(changed=changed)

    async def _act(self, action: queue_pb2.ActRequest.Action.ValueType, messages: Sequence[MessageRow], which: ListFilter) -> int:
        chosen = [(m, [r for r in m.recipients if r.state in OPEN_STATES and r.state is not State.LEASED and which.fits(r)]) for m in messages]
        chosen = [(message, rows) for message, rows in chosen if rows]
        now = self._clock.now_ms()
        names = {queue_pb2.ActRequest.RETRY: "retry", queue_pb2.ActRequest.HOLD: "hold", queue_pb2.ActRequest.RELEASE: "release"}
        if not chosen:
            return 0
        if action in names:
            return await self._spool.reschedule(now, names[action], [row for _, rows in chosen for row in rows])
        return await self._end(now, chosen, bounce=action == queue_pb2.ActRequest.BOUNCE)

    async def _end(self, now: int, chosen: Sequence[Chosen], *, bounce: bool) -> int:
        """All in one transaction; when a worker has leased one of them meanwhile, each message in its own, without that one."""
        ends = [self._ending(now, message, rows, bounce=bounce) for message, rows in chosen]
        settlements = {claim.recipient: settlement for found, _ in ends for claim, settlement in found}
        notices = [notice for _, found in ends for notice in found]
        rows = [row for _, rows in chosen for row in rows]
        try:
            return await self._spool.end(now, rows, lambda claim: replace(settlements[claim.recipient], claim=claim), notices)
        except LostLease:
            return sum([await self._end(now, [one], bounce=bounce) for one in chosen]) if len(chosen) > 1 else 0

    def _ending(
        self, now: int, message: MessageRow, rows: list[RecipientRow], *, bounce: bool
    ) -> tuple[list[tuple[Claim, Settlement]], list[Notice]]:
        """How a message's recipients end by command, and what its sender is told."""
        context = settle.Context(now=now, pool=self._pools.get(message.pool), own_name=self._own_name, jitter=0, attempted=False)
        cause = Cause("5.0.0", "bounced by the postmaster's command" if bounce else "deleted by command", Class.OTHER)
        claims = [Claim(row.id, 0, row.address, row.attempts, row.notify, row.orcpt) for row in rows]
        if not bounce:
            return [(claim, settle.deleted(claim, cause, context)) for claim in claims], []
        failures = [(claim, *settle.command_failure(message.reverse_path, claim, cause, context)) for claim in claims]
        reports: list[Report] = [report for _, _, report in failures if report is not None]
        options = message.options
        original = Original(message.id, message.reverse_path, message.envid, message.received_at, message.headers, smtputf8=options.smtputf8)
        author, sign = self._signing.author(self._pools.sender(message.domain))
        destination = self._pools.destination(message.pool, message.reverse_path.rpartition("@")[2])
        origin = settle.Origin(original, author, message.tenant, message.domain, destination, sign=sign, require_tls=options.require_tls)
        return [(claim, settlement) for claim, settlement, _ in failures], settle.notices(origin, reports, context) if reports else []

    async def SuspendDestination(self, request: queue_pb2.SuspendDestinationRequest, context: Context) -> queue_pb2.ActResponse:
        place = self._pools.destination(request.pool, request.destination)
        if routing.is_site(place) and not routing.is_site(request.destination):
            text = f"mail for {request.destination} goes to {place}, maybe with other domains: name that, or give the domain a limit of its own"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        key = Key(request.pool, request.destination)
        return queue_pb2.ActResponse(changed=await self._spool.suspend(self._clock.now_ms(), key, request.suspended))

    async def SuspendTenant(self, request: queue_pb2.SuspendTenantRequest, context: Context) -> queue_pb2.ActResponse:
        if not request.tenant:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name a tenant")
        return queue_pb2.ActResponse(changed=await self._spool.suspend_tenant(self._clock.now_ms(), request.tenant, request.suspended))

    async def DeadLetters(self, request: queue_pb2.DeadLettersRequest, context: Context) -> queue_pb2.DeadLettersResponse:
        before = DeadLetter(request.before_id, request.before_ms, "", b"") if request.before_ms else None
        letters = await self._spool.dead_letters(before, min(max(1, request.limit or 100), MOST_LISTED))
        return queue_pb2.DeadLettersResponse(letters=[wire.dead_letter(letter) for letter in letters])

    async def Stats(self, request: queue_pb2.StatsRequest, context: Context) -> queue_pb2.StatsResponse:
        now = self._clock.now_ms()
        return wire.stats(await self._spool.stats(now), now)
