"""Delivery in one process with real sockets: the spool on disk, gRPC over a unix socket, a DNS server and a sink on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from postroom.v1 import queue_pb2, queue_pb2_grpc, spool_pb2, spool_pb2_grpc
from postroom_core import rpc
from postroom_core.directory import publish
from postroom_core.documents import Pool, Retry, SenderDomain
from postroom_core.ids import new_message_id
from postroom_core.lifecycle import Stopping
from postroom_core.testing.dns import DnsServer
from postroom_core.testing.sink import Sink
from postroom_delivery import app
from postroom_delivery.settings import Settings

HEADERS = b"From: a@d.example\r\nTo: b@x.example\r\nSubject: test\r\n"
BODY = b".a dot first\r\ntwo  spaces \r\n\r\nend\r\n"
_SETTINGS = ("allowed_mx_networks", "ca_file", "http", "mta_sts_port", "signer_target", "spool_url", "tls_report_sender")
FAST = Pool(name="default/main", retry=Retry(max_age=30, initial=0.1, maximum=0.2))


@dataclass
class Running:
    """A running delivery with its clients and its world."""

    dns: DnsServer
    sink: Sink
    spool: spool_pb2_grpc.SpoolAsyncStub
    queue: queue_pb2_grpc.QueueAsyncStub
    stopping: Stopping
    kinds: list[str] = field(default_factory=list)

    @staticmethod
    def now() -> int:
        return time.time_ns() // 1_000_000

    @staticmethod
    def envelope(message_id: str, *recipients: str, sender: str = "a@d.example", **fields: object) -> spool_pb2.Envelope:
        """An envelope as ingress would make it."""
        values: dict[str, object] = {
            "message_id": message_id,
            "tenant": "default",
            "pool": "default/main",
            "domain": "d.example",
            "credential": "u",
            "reverse_path": sender,
            "recipients": [spool_pb2.Recipient(address=address) for address in recipients],
            "received_at_ms": Running.now(),
        }
        return spool_pb2.Envelope(**(values | fields))  # type: ignore[arg-type]

    async def enqueue(self, *recipients: str, sender: str = "a@d.example", body: bytes = BODY, headers: bytes = HEADERS, **fields: object) -> str:
        """Accepts one message; its id."""
        message_id = new_message_id(self.now())
        end = spool_pb2.End(header_block=headers, body_size=len(body), eight_bit=not (headers + body).isascii())
        chunk = spool_pb2.EnqueueChunk(envelope=self.envelope(message_id, *recipients, sender=sender, **fields), body=body, end=end)
        response = await self.spool.Enqueue(iter([chunk]), timeout=10)
        assert response.accepted.message_id == message_id, response
        return message_id

    async def until(self, message_id: str, *kinds: str) -> list[queue_pb2.Event]:
        """The events of a message up to the first of one of these kinds."""
        seen = []
        async for event in self.queue.Events(queue_pb2.EventsRequest(message_id=message_id, follow=True), timeout=30):
            seen.append(event)
            if event.kind in kinds:
                return seen
        raise AssertionError(seen)


@contextlib.asynccontextmanager
async def delivery(folder: pathlib.Path, pool: Pool = FAST, *, domains: Sequence[SenderDomain] = (), **given: Any) -> AsyncIterator[Running]:
    """Runs delivery until the block ends; the drain must be clean. `given` are settings by name, see _SETTINGS, and the sink's arguments."""
    own = {name: given.pop(name) for name in _SETTINGS if given.get(name)}
    publish(folder / "directory", [pool, *domains], "1")
    async with DnsServer() as dns, Sink(**given) as receiver:
        dns.set("*", "MX", ["10 mx.test."])
        dns.set("mx.test", "A", ["127.0.0.1"])
        settings = Settings(
            directory=str(folder / "directory"),
            hostname="mta.d.example",
            listen=f"unix:{folder}/delivery.sock",
            resolvers=(dns.target,),
            remote_smtp_port=receiver.port,
            **({"allowed_mx_networks": ("127.0.0.0/8",), "spool_url": f"sqlite://{folder}/spool.sqlite3"} | own),
        )
        stopping = Stopping()
        async with asyncio.TaskGroup() as group:
            group.create_task(app.run(settings, stopping))
            async with rpc.connect(settings.listen) as channel:
                await asyncio.wait_for(channel.channel_ready(), 10)
                yield Running(dns, receiver, spool_pb2_grpc.SpoolStub(channel), queue_pb2_grpc.QueueStub(channel), stopping)
            stopping.request()
