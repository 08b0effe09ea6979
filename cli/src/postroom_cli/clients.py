"""gRPC client of the commands: wire in, plain dictionaries out. Every call has a deadline, but following events."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from grpc import aio

from postroom.v1 import (
    analytics_pb2,
    analytics_pb2_grpc,
    queue_pb2,
    queue_pb2_grpc,
    reputation_pb2,
    reputation_pb2_grpc,
    suppression_pb2,
    suppression_pb2_grpc,
    webhooks_pb2,
    webhooks_pb2_grpc,
)
from postroom_cli.cluster import Installation
from postroom_cli.layout import Layout
from postroom_core import rpc
from postroom_core.errors import Permanent, Unavailable

SECONDS = 10.0
OLDER = "delivery is older than this command and does not know what it asks for; upgrade delivery, or use the command of its version"
# gRPC messages have a megabyte at most: some hundred octets a row.
MOST_ROWS = 2000
# Entries of the suppression list in one call: what the service takes.
PAGE = 200
ACTIONS = {
    "retry": queue_pb2.ActRequest.RETRY,
    "hold": queue_pb2.ActRequest.HOLD,
    "release": queue_pb2.ActRequest.RELEASE,
    "bounce": queue_pb2.ActRequest.BOUNCE,
    "rm": queue_pb2.ActRequest.DELETE,
}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient's state; times in Unix milliseconds."""

    address: str
    state: str
    due_at: int
    attempts: int
    last_reply: str
    last_class: str
    in_doubt: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its recipients."""

    id: str
    reverse_path: str
    pool: str
    tenant: str
    size: int
    received_at: int
    expires_at: int
    recipients: tuple[Recipient, ...]
    credential: str = ""
    client_address: str = ""
    headers: bytes = b""
    hold_until: int = 0
    deliver_by: int = 0
    deliver_by_return: bool = False
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Suppressed:
    """An entry of the suppression list; times in Unix milliseconds, `expires_at` 0 is for ever."""

    address: str
    scope: str
    owner: str
    reason: str = ""
    evidence: str = ""
    created_at: int = 0
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A bounce of a bounce; `at` in Unix milliseconds."""

    message: str
    at: int
    reason: str
    headers: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """One state change."""

    number: int
    at: int
    message: str
    recipient: str
    kind: str
    code: int
    enhanced: str
    text: str
    classification: str
    remote: str
    tls: str
    attempt: int
    raw: dict[str, Any] = field(repr=False, default_factory=dict)


class QueueClient:
    """Asks a running delivery. Raises Unavailable when there is none, Permanent for what it does not know."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = queue_pb2_grpc.QueueStub(channel)
        self._analytics = analytics_pb2_grpc.AnalyticsStub(channel)
        self._suppression = suppression_pb2_grpc.SuppressionStub(channel)
        self._reputation = reputation_pb2_grpc.ReputationStub(channel)
        self._webhooks = webhooks_pb2_grpc.WebhooksStub(channel)

    async def suppressions(self, *, scope: str = "", owner: str = "", address: str = "") -> AsyncIterator[Suppressed]:
        """All entries that fit, page by page."""
        after = 0
        while True:
            request = suppression_pb2.SuppressionListRequest(scope=scope, owner=owner, address=address, after=after, limit=PAGE)
            with _mapped():
                entries = (await self._suppression.List(request, timeout=SECONDS)).entries
            for e in entries:
                yield Suppressed(e.address, e.scope, e.owner, e.reason, e.evidence, e.created_at_ms, e.expires_at_ms)
            if len(entries) < PAGE:
                return
            after = entries[-1].number

    async def report(self, content: bytes) -> dict[str, Any]:
        """What became of a bounce or complaint that came back."""
        with _mapped():
            answer = await self._suppression.Report(suppression_pb2.SuppressionReport(content=content), timeout=SECONDS)
        return {
            **{"kind": answer.kind, "message_id": answer.message_id, "addresses": [*answer.addresses]},
            **{"suppressed": answer.suppressed, "text": answer.text},
        }

    async def change_suppressions(self, entries: Sequence[Suppressed], *, remove: bool = False) -> int:
        """Adds or removes; how many changed."""
        changed = 0
        for start in range(0, len(entries), PAGE):
            request = suppression_pb2.SuppressionChange(entries=[_entry(entry) for entry in entries[start : start + PAGE]])
            call = self._suppression.Remove if remove else self._suppression.Add
            with _mapped():
                changed += (await call(request, timeout=SECONDS * 6)).changed
        return changed

    async def list(self, *, limit: int = 100, after: str = "", **which: Any) -> builtins.list[Message]:
        """`which` are the fields of a ListRequest that select: states, domain, sender, tenant, pool, destination, last_class, received_before_ms."""
        request = queue_pb2.ListRequest(limit=limit, after=after, **which)
        with _mapped():
            response = await self._stub.List(request, timeout=SECONDS)
        return [_message(summary) for summary in response.messages]

    async def show(self, message_id: str, *, headers: bool = False) -> Message:
        with _mapped():
            detail = await self._stub.Show(queue_pb2.ShowRequest(message_id=message_id, headers=headers), timeout=SECONDS)
        return _message(
            detail.summary,
            credential=detail.credential,
            hold_until=detail.hold_until_ms,
            deliver_by=detail.deliver_by_ms,
            deliver_by_return=detail.deliver_by_return,
            priority=detail.priority,
            client_address=detail.client_address,
            headers=detail.header_block,
        )

    async def events(self, message_id: str = "", *, follow: bool = False) -> AsyncIterator[Event]:
        request = queue_pb2.EventsRequest(message_id=message_id, follow=follow)
        with _mapped():
            async for event in self._stub.Events(request, timeout=None if follow else SECONDS * 6):
                yield _event(event)

    async def act(self, action: str, ids: Sequence[str], *, everything: bool = False, **which: Any) -> int:
        """`which` as for `list`; it counts with `everything`. Asks until all is done: an answer tells of a part."""
        request = queue_pb2.ActRequest(action=ACTIONS[action], message_ids=ids, all=everything, filter=queue_pb2.ListRequest(**which))
        changed = 0
        while True:
            with _mapped():
                response = await self._stub.Act(request, timeout=SECONDS * 3)
            changed += response.changed
            if not response.next:
                return changed
            del request.message_ids[:]
            request.after = response.next

    async def suspend_tenant(self, tenant: str, *, suspended: bool) -> int:
        """How many tenants are now in another state: 1 or 0."""
        with _mapped():
            request = queue_pb2.SuspendTenantRequest(tenant=tenant, suspended=suspended)
            return (await self._stub.SuspendTenant(request, timeout=SECONDS)).changed

    async def suspend(self, pool: str, destination: str, *, suspended: bool) -> int:
        request = queue_pb2.SuspendDestinationRequest(pool=pool, destination=destination, suspended=suspended)
        with _mapped():
            return (await self._stub.SuspendDestination(request, timeout=SECONDS)).changed

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """Newest first."""
        with _mapped():
            response = await self._stub.DeadLetters(queue_pb2.DeadLettersRequest(limit=limit), timeout=SECONDS)
        return [DeadLetter(letter.message_id, letter.at_ms, letter.reason, letter.header_block) for letter in response.letters]

    async def analytics(self, since: int, until: int, by: Sequence[str], where: Mapping[str, str]) -> builtins.list[dict[str, Any]]:
        """Rows of counts and latencies, the busiest first; times in Unix milliseconds."""
        request = analytics_pb2.AnalyticsRequest(since_ms=since, until_ms=until, by=by, where=where, limit=MOST_ROWS)
        with _mapped():
            response = await self._analytics.Query(request, timeout=SECONDS * 3)
        return [_row(row) for row in response.rows]

    async def curbs(self) -> builtins.list[dict[str, Any]]:
        """Senders that something is known against, by name: the fields of Curb in reputation.proto."""
        found: builtins.list[dict[str, Any]] = []
        while True:
            request = reputation_pb2.ReputationRequest(after=found[-1]["name"] if found else "")
            with _mapped():
                page = (await self._reputation.List(request, timeout=SECONDS)).curbs
            if not page:
                return found
            found += [{field.name: getattr(curb, field.name) for field in curb.DESCRIPTOR.fields} for curb in page]

    async def resume(self, name: str, spare_ms: int) -> None:
        """Ends a sender's curb; it is not judged for so long."""
        with _mapped():
            await self._reputation.Resume(reputation_pb2.ResumeRequest(name=name, spare_ms=spare_ms), timeout=SECONDS)

    async def webhooks(self, domain: str = "") -> builtins.list[dict[str, Any]]:
        """How it goes with each, in the order of their names: the fields of Webhook in webhooks.proto."""
        found: builtins.list[dict[str, Any]] = []
        while True:
            request = webhooks_pb2.WebhooksRequest(domain=domain, after=found[-1]["name"] if found else "")
            with _mapped():
                page = (await self._webhooks.List(request, timeout=SECONDS)).webhooks
            if not page:
                return found
            found += [{field.name: getattr(hook, field.name) for field in hook.DESCRIPTOR.fields} for hook in page]

    async def stats(self) -> dict[str, Any]:
        with _mapped():
            response = await self._stub.Stats(queue_pb2.StatsRequest(), timeout=SECONDS)
        return {
            "recipients": dict(response.recipients),
            "due": response.due,
            "oldest_due_seconds": response.oldest_due_seconds,
            "in_doubt": response.in_doubt,
            "suspended_tenants": list(response.suspended_tenants),
            "destinations": [
                MessageToDict(d, preserving_proto_field_name=True, always_print_fields_with_no_presence=True) for d in response.destinations
            ],
        }


@contextlib.asynccontextmanager
async def connected(place: Layout | Installation) -> AsyncIterator[QueueClient]:
    """A client of the instance with this data folder, or in this cluster. Raises Unavailable when none runs."""
    if isinstance(place, Installation):
        async with place.forward() as way, rpc.connect(way.target, "delivery", way.tls) as channel:
            yield QueueClient(channel)
        return
    layout = place
    socket = layout.socket("delivery")
    if not socket.exists():
        raise Unavailable(f"no Postroom is running with the data folder {layout.root}; start it with postroom up, or set POSTROOM_DATA_DIR")
    async with rpc.connect(f"unix:{socket}") as channel:
        yield QueueClient(channel)


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED):
            older = error.details() == "Method not found!"  # gRPC's own words, not those of a service
            raise Permanent(OLDER if older else error.details() or "not found") from error
        raise Unavailable(f"Postroom does not answer ({error.code().name}); is postroom up running with this data folder?") from error


def _row(row: analytics_pb2.AnalyticsRow) -> dict[str, Any]:
    latencies = {
        name: {"count": found.count, "p50_ms": found.p50_ms, "p95_ms": found.p95_ms, "p99_ms": found.p99_ms} for name, found in row.latencies.items()
    }
    return {"values": list(row.values), "counts": dict(row.counts), "latencies": latencies}


def _message(summary: queue_pb2.MessageSummary, **detail: Any) -> Message:
    recipients = tuple(Recipient(r.address, r.state, r.due_at_ms, r.attempts, r.last_reply, r.last_class, r.in_doubt) for r in summary.recipients)
    return Message(
        id=summary.message_id,
        reverse_path=summary.reverse_path,
        pool=summary.pool,
        tenant=summary.tenant,
        size=summary.size,
        received_at=summary.received_at_ms,
        expires_at=summary.expires_at_ms,
        recipients=recipients,
        **detail,
    )


def _entry(entry: Suppressed) -> suppression_pb2.SuppressionEntry:
    return suppression_pb2.SuppressionEntry(
        scope=entry.scope,
        owner=entry.owner,
        address=entry.address,
        reason=entry.reason,
        evidence=entry.evidence,
        created_at_ms=entry.created_at,
        expires_at_ms=entry.expires_at,
    )


def _event(event: queue_pb2.Event) -> Event:
    raw = MessageToDict(event, preserving_proto_field_name=True)
    raw.update(number=event.number, at_ms=event.at_ms)  # protobuf's JSON makes 64-bit numbers strings
    return Event(
        number=event.number,
        at=event.at_ms,
        message=event.message_id,
        recipient=event.recipient,
        kind=event.kind,
        code=event.code,
        enhanced=event.enhanced,
        text=event.text,
        classification=getattr(event, "class"),
        remote=event.remote,
        tls=event.tls,
        attempt=event.attempt,
        raw=raw,
    )
