"""gRPC servicer of the suppression list: thin; wire → spool → wire."""

from collections.abc import Sequence
from typing import Any

import grpc
from grpc import aio

from postroom.v1 import suppression_pb2, suppression_pb2_grpc
from postroom_core.clock import Clock
from postroom_core.suppression import SCOPES, normal
from postroom_delivery import reports, returns
from postroom_delivery.classify import table_of
from postroom_delivery.pools import Pools
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Suppression, SuppressionFilter
from postroom_delivery.suppression import Suppressions, text
from postroom_delivery.verp import Verp

Context = aio.ServicerContext[Any, Any]
# An entry has some KiB at most, a gRPC message one MiB.
MOST = 200
MOST_TEXT = 1000
_Request = suppression_pb2.SuppressionChange


class SuppressionServicer(suppression_pb2_grpc.SuppressionServicer):
    """See suppression.proto."""

    def __init__(self, spool: Spool, suppressions: Suppressions, pools: Pools, clock: Clock, verp: Verp) -> None:
        self._spool = spool
        self._verp = verp
        self._pools = pools
        self._suppressions = suppressions
        self._clock = clock

    async def Filter(self, request: suppression_pb2.SuppressionFilterRequest, context: Context) -> suppression_pb2.SuppressionFilterResponse:
        version = self._suppressions.version
        bits = b"" if version == request.version else bytes(self._suppressions.filter)
        return suppression_pb2.SuppressionFilterResponse(version=version, bits=bits)

    async def Lookup(self, request: suppression_pb2.SuppressionLookupRequest, context: Context) -> suppression_pb2.SuppressionLookupResponse:
        found = await self._suppressions.lookup(request.tenant, request.domain, request.address)
        if found is None:
            return suppression_pb2.SuppressionLookupResponse()
        return suppression_pb2.SuppressionLookupResponse(entry=_wire(found), text=text(found))

    async def List(self, request: suppression_pb2.SuppressionListRequest, context: Context) -> suppression_pb2.SuppressionListResponse:
        limit = min(max(1, request.limit or 100), MOST)
        which = SuppressionFilter(request.scope, request.owner, normal(request.address), request.after, limit)
        return suppression_pb2.SuppressionListResponse(entries=[_wire(entry) for entry in await self._spool.suppressions(which)])

    async def Add(self, request: _Request, context: Context) -> suppression_pb2.SuppressionChanged:
        entries = await self._entries(request, context)
        changed = await self._spool.suppress(entries)
        await self._suppressions.refresh()
        return suppression_pb2.SuppressionChanged(changed=changed)

    async def Report(self, request: suppression_pb2.SuppressionReport, context: Context) -> suppression_pb2.SuppressionReported:
        report = reports.parse(request.content)
        proven = await self._verp.verified((request.return_path, *report.return_paths))
        message_id = proven.message_id if proven is not None else report.message_id
        message = await self._spool.show(message_id) if message_id else None
        if message is None:
            return suppression_pb2.SuppressionReported(text="the report is about no message that is known here")
        now = self._clock.now_ms()
        named = next((r.address for r in message.recipients if proven is not None and r.id == proven.recipient), "")
        told = returns.judge(report, message, table_of(self._pools.get(message.pool).reply_rules), now, named)
        believed = bool(named) or not request.return_path
        suppressed = sum([await self._spool.tell(now, message.id, one.address, one.event, one.entries if believed else ()) for one in told])
        kind = told[0].event.kind if told else ""
        text = told[0].event.text or str(told[0].event.reply or "") if told else "the report is about none of the message's recipients"
        return suppression_pb2.SuppressionReported(
            kind=kind, message_id=message.id, addresses=[one.address for one in told], suppressed=suppressed, text=text
        )

    async def CheckReturnPath(self, request: suppression_pb2.ReturnPathRequest, context: Context) -> suppression_pb2.ReturnPathResponse:
        return suppression_pb2.ReturnPathResponse(proven=await self._verp.verified([request.address]) is not None)

    async def Remove(self, request: _Request, context: Context) -> suppression_pb2.SuppressionChanged:
        return suppression_pb2.SuppressionChanged(changed=await self._spool.unsuppress(await self._entries(request, context)))

    async def _entries(self, request: _Request, context: Context) -> Sequence[Suppression]:
        now = self._clock.now_ms()
        for entry in request.entries:
            if entry.scope not in SCOPES or (entry.scope == "global") != (not entry.owner) or "@" not in entry.address or len(entry.address) > 320:
                fault = "an entry has scope global without owner, or tenant or domain with one, and an address"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, fault)
        if len(request.entries) > MOST:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"at most {MOST} entries at once")
        return [
            Suppression(
                scope=entry.scope,
                owner=entry.owner,
                address=normal(entry.address),
                reason=entry.reason[:MOST_TEXT] or "manual",
                evidence=entry.evidence[:MOST_TEXT],
                created_at=entry.created_at_ms or now,
                expires_at=entry.expires_at_ms,
            )
            for entry in request.entries
        ]


def _wire(entry: Suppression) -> suppression_pb2.SuppressionEntry:
    return suppression_pb2.SuppressionEntry(
        scope=entry.scope,
        owner=entry.owner,
        address=entry.address,
        reason=entry.reason,
        evidence=entry.evidence,
        created_at_ms=entry.created_at,
        expires_at_ms=entry.expires_at,
        number=entry.number,
    )
