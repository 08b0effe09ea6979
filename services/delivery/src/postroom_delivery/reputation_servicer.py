"""gRPC servicer of outgoing spam control: thin; curbs → wire, and a person's command."""

from dataclasses import replace
from typing import Any

import grpc
from grpc import aio

from postroom.v1 import reputation_pb2, reputation_pb2_grpc
from postroom_core.clock import Clock
from postroom_delivery import reputation
from postroom_delivery.reputation_keeper import Curbs
from postroom_delivery.spool.curbs import Curb

Context = aio.ServicerContext[Any, Any]
MOST = 500
# Longer than a week is a decision for the pool's policy, not for a command.
LONGEST_SPARE_MS = 7 * 86_400_000


class ReputationServicer(reputation_pb2_grpc.ReputationServicer):
    """See reputation.proto."""

    def __init__(self, curbs: Curbs, clock: Clock) -> None:
        self._curbs = curbs
        self._clock = clock

    async def List(self, request: reputation_pb2.ReputationRequest, context: Context) -> reputation_pb2.ReputationResponse:
        await self._curbs.refresh()
        found = [curb for curb in self._curbs.all if curb.name > request.after][:MOST]
        return reputation_pb2.ReputationResponse(curbs=[self._wire(curb) for curb in found])

    async def Resume(self, request: reputation_pb2.ResumeRequest, context: Context) -> reputation_pb2.Curb:
        if not 0 <= request.spare_ms <= LONGEST_SPARE_MS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a sender can be spared for a week at most")
        found = await self._curbs.resume(request.name, request.spare_ms)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"nothing is known against {request.name}")
            raise AssertionError
        return self._wire(found)

    def _wire(self, curb: Curb) -> reputation_pb2.Curb:
        curb = replace(curb, level=reputation.in_force(curb, self._clock.now_ms()))
        return reputation_pb2.Curb(
            name=curb.name,
            level=curb.level,
            signal=curb.signal,
            text=curb.text,
            since_ms=curb.since,
            until_ms=curb.until,
            pace=curb.pace,
            spared_until_ms=curb.spared_until,
        )
