"""gRPC servicer of analytics: thin; wire → question → roll-ups → wire. And the loop that keeps the roll-ups up to date."""

import asyncio
from typing import Any

import grpc
from grpc import aio

from postroom.v1 import analytics_pb2, analytics_pb2_grpc
from postroom_core.clock import Clock
from postroom_core.errors import Unavailable
from postroom_delivery import analytics
from postroom_delivery.spool.interface import RollUps

Context = aio.ServicerContext[Any, Any]
DEFAULT_ROWS = 1000
# Plots are this much behind; a page of events costs some milliseconds of the reading thread.
PAUSE_SECONDS = 2.0
FORGET_SECONDS = 3600.0


class AnalyticsServicer(analytics_pb2_grpc.AnalyticsServicer):
    """`spool` is None when analytics are switched off."""

    def __init__(self, spool: RollUps | None) -> None:
        self._spool = spool

    async def Query(self, request: analytics_pb2.AnalyticsRequest, context: Context) -> analytics_pb2.AnalyticsResponse:
        if self._spool is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "POSTROOM_ANALYTICS is off here: nothing is counted")
            raise AssertionError
        try:
            question = analytics.question(request.since_ms, request.until_ms, request.by, request.where)
            facts = await self._spool.facts(
                (question.grain, question.since - question.since % question.grain, question.until), question.by, question.where
            )
        except analytics.BadQuestion as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise AssertionError from None
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError from None
        found = analytics.rows(facts)
        limit = min(request.limit or DEFAULT_ROWS, analytics.MOST_ROWS)
        return analytics_pb2.AnalyticsResponse(rows=[_row(row) for row in found[:limit]], cut=len(found) > limit)


def _row(row: analytics.Row) -> analytics_pb2.AnalyticsRow:
    latencies = {
        name: analytics_pb2.AnalyticsLatency(count=found.count, p50_ms=found.p50, p95_ms=found.p95, p99_ms=found.p99)
        for name, found in row.latencies.items()
    }
    return analytics_pb2.AnalyticsRow(values=row.values, counts=row.counts, latencies=latencies)


async def keep(spool: RollUps, clock: Clock) -> None:
    """Rolls up for ever: page after page while there are events, then every two seconds; forgets once an hour."""
    forgotten = 0
    while True:
        if clock.now_ms() - forgotten > FORGET_SECONDS * 1000:
            forgotten = clock.now_ms()
            await spool.forget_facts(forgotten)
        if not await spool.roll_up():
            await asyncio.sleep(PAUSE_SECONDS)
