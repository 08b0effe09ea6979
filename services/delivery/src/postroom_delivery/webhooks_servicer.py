"""gRPC servicer of webhooks: thin; targets and their state → wire."""

from typing import Any

from grpc import aio
from yarl import URL

from postroom.v1 import webhooks_pb2, webhooks_pb2_grpc
from postroom_core.clock import Clock
from postroom_delivery import webhooks
from postroom_delivery.spool.hooks import HookState
from postroom_delivery.spool.interface import Hooks
from postroom_delivery.webhook_sender import Webhooks
from postroom_delivery.webhooks import Target

Context = aio.ServicerContext[Any, Any]
# Each costs a bounded read of events; a gRPC message has one MiB.
MOST = 200


class WebhooksServicer(webhooks_pb2_grpc.WebhooksServicer):
    """See webhooks.proto."""

    def __init__(self, spool: Hooks, sender: Webhooks, clock: Clock) -> None:
        self._spool = spool
        self._sender = sender
        self._clock = clock

    async def List(self, request: webhooks_pb2.WebhooksRequest, context: Context) -> webhooks_pb2.WebhooksResponse:
        states = {state.name: state for state in await self._spool.hooks()}
        found = [(name, target) for name, target in sorted(self._sender.targets.items()) if name > request.after]
        chosen = [pair for pair in found if request.domain in ("", pair[1].domain.name)][:MOST]
        return webhooks_pb2.WebhooksResponse(webhooks=[await self._one(target, states.get(name)) for name, target in chosen])

    async def _one(self, target: Target, state: HookState | None) -> webhooks_pb2.Webhook:
        host = URL(target.webhook.url).host or ""
        if state is None:  # the process with the duty has not seen it yet
            return webhooks_pb2.Webhook(name=target.name, host=host, health="new")
        count, oldest = webhooks.waiting(target, await self._spool.hook_backlog(state.cursor, target.domain.name))
        return webhooks_pb2.Webhook(
            name=target.name,
            host=host,
            health=webhooks.health(state, self._clock.now_ms()),
            waiting=count,
            oldest_at_ms=oldest,
            sent=state.sent,
            lost=state.lost,
            failures=state.failures,
            failing_since_ms=state.failing_since,
            next_at_ms=state.next_at,
            last_at_ms=state.last_at,
            last_text=state.last_text,
        )
