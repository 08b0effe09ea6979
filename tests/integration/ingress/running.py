"""Ingress in one process with real sockets; the spool and the signer are fakes behind real gRPC, so that each can fail on demand.

The loop is uvloop's, as in the product; it refuses to close while a transport is open, so that a connection nobody closed fails its test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvloop

from postroom.v1 import signer_pb2, signer_pb2_grpc, spool_pb2, spool_pb2_grpc, suppression_pb2, suppression_pb2_grpc
from postroom_core import rpc
from postroom_core.directory import publish
from postroom_core.documents import Certificate, Client, Credential, Domain, Limits
from postroom_core.lifecycle import Stopping
from postroom_core.suppression import Filter, keys, normal
from postroom_core.testing.certificate import self_signed
from postroom_ingress import app
from postroom_ingress.settings import Settings
from postroom_operator.verifiers import derive

VERIFIER = derive("p", b"salt of user one")
HELLO = b"From: a@d.example\r\n\r\nhello\r\n"


def domain(**changes: Any) -> Domain:
    credential = Credential(name="u", username="u", verifiers=(VERIFIER,), allowed_senders=("*@d.example",))
    client = Client(name="box", cidrs=("127.0.0.2/32",), allowed_senders=("*@d.example",))
    values: dict[str, Any] = {"name": "d.example", "tenant": "t", "pool": "default/main", "active": True, "signed": True}
    return Domain(**(values | {"credentials": (credential,), "clients": (client,), "limits": Limits()} | changes))


@dataclass
class FakeSpool(spool_pb2_grpc.SpoolServicer):
    """Keeps what was committed; `refuse` answers instead, `hold` delays the commit until it is set."""

    messages: list[tuple[spool_pb2.Envelope, bytes, bytes]] = field(default_factory=list)
    abandoned: int = 0
    largest: int = 0
    refuse: spool_pb2.Reply | None = None
    hold: asyncio.Event | None = None
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def Enqueue(self, request_iterator: Any, context: Any) -> spool_pb2.EnqueueResponse:
        envelope, body = spool_pb2.Envelope(), b""
        complete = False
        try:
            async for chunk in request_iterator:
                self.began.set()
                if chunk.HasField("envelope"):
                    envelope = chunk.envelope
                body += chunk.body
                self.largest = max(self.largest, len(chunk.body))
                if chunk.HasField("end"):
                    complete = True
                    if self.refuse is not None:
                        return spool_pb2.EnqueueResponse(refused=self.refuse)
                    self.ended.set()
                    if self.hold is not None:
                        await self.hold.wait()
                    self.messages.append((envelope, chunk.end.header_block, body))
                    return spool_pb2.EnqueueResponse(accepted=spool_pb2.Accepted(message_id=envelope.message_id))
        finally:
            self.abandoned += not complete
            self.left.set()
        raise AssertionError("no end chunk")

    async def EnqueueBatch(self, request: spool_pb2.EnqueueBatchRequest, context: Any) -> spool_pb2.EnqueueBatchResponse:
        async def one(chunk: spool_pb2.EnqueueChunk) -> Any:
            yield chunk

        return spool_pb2.EnqueueBatchResponse(responses=[await self.Enqueue(one(chunk), context) for chunk in request.messages])


@dataclass
class FakeSuppression(suppression_pb2_grpc.SuppressionServicer):
    """A list in memory: address → reason, in force for everybody."""

    entries: dict[str, str] = field(default_factory=dict)
    lookups: int = 0
    reports: list[bytes] = field(default_factory=list)
    return_paths: list[str] = field(default_factory=list)
    proven: str = ""
    asked: int = 0

    async def CheckReturnPath(self, request: suppression_pb2.ReturnPathRequest, context: Any) -> suppression_pb2.ReturnPathResponse:
        self.asked += 1
        return suppression_pb2.ReturnPathResponse(proven=request.address.lower() == self.proven)

    async def Filter(self, request: suppression_pb2.SuppressionFilterRequest, context: Any) -> suppression_pb2.SuppressionFilterResponse:
        made = Filter.sized(0)
        for address in self.entries:
            made.add(keys("", "", address)[0])
        return suppression_pb2.SuppressionFilterResponse(version="1", bits=bytes(made))

    async def Report(self, request: suppression_pb2.SuppressionReport, context: Any) -> suppression_pb2.SuppressionReported:
        self.reports.append(request.content)
        self.return_paths.append(request.return_path)
        return suppression_pb2.SuppressionReported()

    async def Lookup(self, request: suppression_pb2.SuppressionLookupRequest, context: Any) -> suppression_pb2.SuppressionLookupResponse:
        self.lookups += 1
        return suppression_pb2.SuppressionLookupResponse(text=self.entries.get(normal(request.address), ""))


@dataclass
class FakeSigner(signer_pb2_grpc.SignerServicer):
    """Signs with a fixed field, or refuses."""

    refusal: signer_pb2.Refusal | None = None

    async def Sign(self, request: signer_pb2.SignRequest, context: Any) -> signer_pb2.SignResponse:
        if self.refusal is not None:
            return signer_pb2.SignResponse(refusal=self.refusal)
        return signer_pb2.SignResponse(signature=signer_pb2.Signature(header_fields=b"DKIM-Signature: fake\r\n"))

    async def SignBatch(self, request: signer_pb2.SignBatchRequest, context: Any) -> signer_pb2.SignBatchResponse:
        return signer_pb2.SignBatchResponse(responses=[await self.Sign(one, context) for one in request.requests])

    async def Loaded(self, request: signer_pb2.LoadedRequest, context: Any) -> signer_pb2.LoadedResponse:
        return signer_pb2.LoadedResponse()


class Dialogue:
    """A client that says exactly what a test writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._dripping: asyncio.Task[None] | None = None

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def reply(self) -> str:
        """The next reply, lines joined by newlines; "" when the server has closed."""
        lines = []
        async with asyncio.timeout(20):
            while line := await self._readline():
                lines.append(line.decode().rstrip("\r\n"))
                if line[3:4] != b"-":
                    break
        return "\n".join(lines)

    async def _readline(self) -> bytes:
        try:
            return await self._reader.readline()
        except ConnectionError:  # closed while something of ours was not read
            return b""

    async def ask(self, text: str) -> str:
        self.send(text.encode() + b"\r\n")
        return await self.reply()

    async def start_tls(self) -> None:
        assert (await self.ask("STARTTLS")).startswith("220")
        await self.secure()

    async def secure(self) -> None:
        """The handshake behind the reply to STARTTLS."""
        context = ssl._create_unverified_context()
        await self._writer.start_tls(context, server_hostname="mta.d.example")

    async def login(self, username: str = "u", password: str = "p") -> str:
        return await self.ask("AUTH PLAIN " + base64.b64encode(f"\0{username}\0{password}".encode()).decode())

    async def message(self, content: bytes, *, sender: str = "a@d.example", recipient: str = "b@x.example") -> str:
        """One transaction; the reply to its end, or the first refusal."""
        for command in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA"):
            reply = await self.ask(command)
            if reply[0] in "45":
                return reply
        self.send(content + b".\r\n")
        return await self.reply()

    async def drain(self) -> None:
        """Waits until the server takes what was sent."""
        await self._writer.drain()

    def drip(self, data: bytes) -> None:
        """Sends an octet now and then, until the server closes."""

        async def dripping() -> None:
            with contextlib.suppress(OSError):
                for octet in data:
                    self._writer.write(bytes([octet]))
                    await self._writer.drain()
                    await asyncio.sleep(0.05)

        self._dripping = asyncio.create_task(dripping())

    async def last_words(self) -> str:
        """The last reply before the server closes, "" when there was none or it could not be read."""
        last = ""
        with contextlib.suppress(ConnectionError):
            while reply := await self.reply():
                last = reply
        self._writer.close()
        return last

    async def message_data(self, content: bytes) -> str:
        """DATA of a transaction that is open; `content` has no line with a dot in front."""
        reply = await self.ask("DATA")
        if not reply.startswith("354"):
            return reply
        self.send(content + b".\r\n")
        return await self.reply()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        if self._dripping is not None:
            self._dripping.cancel()
        self._writer.transport.abort()


@dataclass
class Running:
    """A running ingress."""

    folder: pathlib.Path
    settings: Settings
    spool: FakeSpool
    signer: FakeSigner
    stopping: Stopping
    suppression: FakeSuppression = field(default_factory=FakeSuppression)
    clients: list[Dialogue] = field(default_factory=list)
    signing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    storing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start_signer(self) -> None:
        serving = rpc.serve(self.settings.signer_target, lambda s: signer_pb2_grpc.add_SignerServicer_to_server(self.signer, s), grace_seconds=0)
        await self.signing.enter_async_context(serving)

    async def stop_signer(self) -> None:
        await self.signing.aclose()

    async def start_delivery(self) -> None:
        await self.storing.enter_async_context(rpc.serve(self.settings.delivery_target, self._register_delivery, grace_seconds=0))

    async def stop_delivery(self) -> None:
        await self.storing.aclose()

    def _register_delivery(self, server: rpc.Server) -> None:
        spool_pb2_grpc.add_SpoolServicer_to_server(self.spool, server)
        suppression_pb2_grpc.add_SuppressionServicer_to_server(self.suppression, server)

    async def connect(self, where: str = "submission", source: str = "127.0.0.1") -> Dialogue:
        """Greeted and EHLO'd, unless it is only a socket: use `raw`."""
        dialogue = await self.raw(where, source)
        assert (await dialogue.reply()).startswith("220 ")
        reply = await dialogue.ask("EHLO client.test")
        assert reply.startswith("250"), reply
        return dialogue

    async def raw(self, where: str = "submission", source: str = "127.0.0.1") -> Dialogue:
        address, port = self.address(where)
        context = ssl._create_unverified_context() if where == "tls" else None
        return self.dialogue(*await asyncio.open_connection(address, port, ssl=context, local_addr=(source, 0)))

    def address(self, where: str) -> tuple[str, int]:
        """Of a listener."""
        host, _, port = str(getattr(self.settings, f"listen_{where}")).rpartition(":")
        return host, int(port)

    def dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Dialogue:
        """Over a connection that was made otherwise. All of them are cut at the end, whatever a scenario did with them."""
        made = Dialogue(reader, writer)
        self.clients.append(made)
        return made

    def cut(self) -> None:
        """Every client's connection."""
        for client in self.clients:
            client.abort()

    async def authenticated(self) -> Dialogue:
        dialogue = await self.connect("tls")
        assert (await dialogue.login()).startswith("235")
        return dialogue

    def publish(self, *documents: Any, version: str) -> None:
        publish(self.folder / "directory", documents, version)


def certificate() -> Certificate:
    made = self_signed("mta.d.example")
    return Certificate(name="default", chain=made.certificate.decode(), private_key=made.key.decode())


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextlib.asynccontextmanager
async def ingress(folder: pathlib.Path, *documents: Domain, **settings: Any) -> AsyncIterator[Running]:
    """Runs ingress until the block ends; the drain must be clean."""
    publish(folder / "directory", [*(documents or [domain()]), certificate()], "1")
    names = ("submission", "tls", "relay")
    listen = {f"listen_{name}": f"127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)}
    signer, delivery = f"unix:{folder}/signer.sock", f"unix:{folder}/delivery.sock"
    configured = Settings(
        **{
            "directory": str(folder / "directory"),
            "hostname": "mta.d.example",
            "signer_target": signer,
            "delivery_target": delivery,
            **listen,
            **settings,
        }
    )
    running = Running(folder, configured, FakeSpool(), FakeSigner(), Stopping())
    async with contextlib.AsyncExitStack() as stack:
        await running.start_signer()
        stack.push_async_callback(running.stop_signer)
        await running.start_delivery()
        stack.push_async_callback(running.stop_delivery)
        stack.callback(running.cut)
        async with asyncio.TaskGroup() as group:
            group.create_task(app.run(configured, running.stopping))
            async with asyncio.timeout(60):
                while not await _listens(configured.listen_relay):
                    await asyncio.sleep(0.01)
            yield running
            running.stopping.request()


def run(folder: pathlib.Path, scenario: Callable[[Running], Awaitable[None]], *documents: Domain, **settings: Any) -> None:
    """A scenario against an ingress of its own."""

    async def main() -> None:
        async with ingress(folder, *documents, **settings) as running:
            await scenario(running)

    uvloop.run(main())


async def envelope(client: Dialogue, mail: str = "", recipient: str = "b@x.example") -> None:
    assert (await client.ask(f"MAIL FROM:<a@d.example>{mail}")).startswith("250")
    assert (await client.ask(f"RCPT TO:<{recipient}>")).startswith("250")


async def bdat(client: Dialogue, chunk: bytes, last: str = "") -> str:
    client.send(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
    return await client.reply()


async def _listens(where: str) -> bool:
    address, _, port = where.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(address, int(port))
    except OSError:
        return False
    writer.close()
    return True
