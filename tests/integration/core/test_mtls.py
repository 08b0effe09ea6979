"""gRPC between pods over real sockets with real certificates: who is let in, who is not, renewal while calls run, several servers behind one name."""

import asyncio
import contextlib
import datetime
import pathlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from postroom.v1 import queue_pb2, queue_pb2_grpc, signer_pb2, signer_pb2_grpc, spool_pb2, spool_pb2_grpc
from postroom_core import mtls, rpc
from postroom_core.testing.certificate import Authority

DOMAIN = "postroom.svc"
SECONDS = 5.0


class Signer(signer_pb2_grpc.SignerServicer):
    """Answers with its name, and once `hold` is set only when that is released."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls = 0
        self.hold: asyncio.Event | None = None

    async def Sign(self, request: signer_pb2.SignRequest, context: Any) -> signer_pb2.SignResponse:
        self.calls += 1
        if self.hold is not None:
            await self.hold.wait()
        return signer_pb2.SignResponse(signature=signer_pb2.Signature(header_fields=self.name.encode()))

    async def Loaded(self, request: signer_pb2.LoadedRequest, context: Any) -> signer_pb2.LoadedResponse:
        return signer_pb2.LoadedResponse(selectors=["s1"])

    async def SignBatch(self, request: signer_pb2.SignBatchRequest, context: Any) -> signer_pb2.SignBatchResponse:
        return signer_pb2.SignBatchResponse()


async def events(_: queue_pb2.EventsRequest, __: Any) -> AsyncIterator[queue_pb2.Event]:
    yield queue_pb2.Event(number=1)


EVENTS = grpc.unary_stream_rpc_method_handler(events, queue_pb2.EventsRequest.FromString, queue_pb2.Event.SerializeToString)


class Spool(spool_pb2_grpc.SpoolServicer):
    async def Enqueue(self, request_iterator: AsyncIterator[spool_pb2.EnqueueChunk], context: Any) -> spool_pb2.EnqueueResponse:
        async for _ in request_iterator:
            pass
        return spool_pb2.EnqueueResponse()

    async def EnqueueBatch(self, request: spool_pb2.EnqueueBatchRequest, context: Any) -> spool_pb2.EnqueueBatchResponse:
        return spool_pb2.EnqueueBatchResponse()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Platform:
    """A CA and the folders of its services' certificates."""

    def __init__(self, root: pathlib.Path, domain: str = DOMAIN, authority: Authority | None = None) -> None:
        self.root = root
        self.domain = domain
        self.authority = authority or Authority()

    def folder(self, service: str, **options: Any) -> pathlib.Path:
        return self.authority.mount(self.root / service, self.authority.issue(f"{service}.{self.domain}", **options))


@contextlib.asynccontextmanager
async def signing(platform: Platform, signer: Signer, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """A running signer with every servicer; its target."""
    port = port or free_port()

    def register(server: rpc.Server) -> None:
        signer_pb2_grpc.add_SignerServicer_to_server(signer, server)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("postroom.v1.Queue", {"Events": EVENTS})])
        spool_pb2_grpc.add_SpoolServicer_to_server(Spool(), server)

    async with rpc.serve(f"{address}:{port}", register, grace_seconds=0, tls=platform.root / "signer"):
        yield f"{address}:{port}"


async def sign(channel: Any, seconds: float = SECONDS) -> str:
    response = await signer_pb2_grpc.SignerStub(channel).Sign(signer_pb2.SignRequest(), timeout=seconds)
    return str(response.signature.header_fields.decode())


async def refusal(target: str, folder: pathlib.Path, peer: str = "signer") -> grpc.StatusCode:
    async with rpc.connect(target, peer, folder) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await sign(channel, 2.0)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.fixture
def platform(tmp_path: pathlib.Path) -> Platform:
    made = Platform(tmp_path / "platform")
    made.folder("signer")
    return made


async def in_loop(work: Any) -> Any:
    async with asyncio.timeout(40):
        return await work


def run(work: Any) -> Any:
    return asyncio.run(in_loop(work))


def test_ingress_of_the_platform_is_served(platform: Platform) -> None:
    async def scenario() -> None:
        async with signing(platform, Signer("one")) as target, rpc.connect(target, "signer", platform.folder("ingress")) as channel:
            assert await sign(channel) == "one"

    run(scenario())


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("ingress", {"Sign": True, "Loaded": False, "Enqueue": True, "Events": False}),
        ("delivery", {"Sign": True, "Loaded": False, "Enqueue": False, "Events": False}),
        ("operator", {"Sign": False, "Loaded": True, "Enqueue": False, "Events": True}),
        ("cli", {"Sign": False, "Loaded": False, "Enqueue": False, "Events": True}),
        ("signer", {"Sign": False, "Loaded": False, "Enqueue": False, "Events": False}),
    ],
)
def test_each_service_may_call_its_own_methods_and_no_other(platform: Platform, service: str, expected: dict[str, bool]) -> None:
    async def scenario() -> None:
        folder = platform.folder(service) if service != "signer" else platform.root / "signer"
        async with signing(platform, Signer("one")) as target, rpc.connect(target, "signer", folder) as channel:
            signer, stream = signer_pb2_grpc.SignerStub(channel), queue_pb2_grpc.QueueStub(channel).Events(queue_pb2.EventsRequest(), timeout=SECONDS)
            with contextlib.suppress(grpc.RpcError):
                assert [event.number async for event in stream] == [1]
            codes = {
                "Sign": await signer.Sign(signer_pb2.SignRequest(), timeout=SECONDS).code(),
                "Loaded": await signer.Loaded(signer_pb2.LoadedRequest(), timeout=SECONDS).code(),
                "Enqueue": await spool_pb2_grpc.SpoolStub(channel).Enqueue(iter([spool_pb2.EnqueueChunk()]), timeout=SECONDS).code(),
                "Events": await stream.code(),
            }
        assert {name: code is grpc.StatusCode.OK for name, code in codes.items()} == expected
        assert set(codes.values()) <= {grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED}

    run(scenario())


def test_strangers_are_not_served(platform: Platform, tmp_path: pathlib.Path) -> None:
    """Another CA; our CA but another domain; an expired certificate."""
    other_ca = Platform(tmp_path / "other", DOMAIN).folder("ingress")
    other_domain = Platform(tmp_path / "elsewhere", "elsewhere.svc", platform.authority).folder("ingress")
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    expired = Platform(tmp_path / "expired", DOMAIN, platform.authority).folder("ingress", until=yesterday)
    signer = Signer()

    async def scenario() -> None:
        async with signing(platform, signer) as target:
            assert await refusal(target, other_ca) is grpc.StatusCode.UNAVAILABLE
            assert await refusal(target, other_domain) is grpc.StatusCode.UNAVAILABLE
            assert await refusal(target, expired) is grpc.StatusCode.UNAVAILABLE
            async with grpc.aio.insecure_channel(target) as plain:
                with pytest.raises(grpc.RpcError):
                    await sign(plain, 2.0)

    run(scenario())
    assert signer.calls == 0


def test_a_server_that_is_not_the_peer_gets_no_call(platform: Platform) -> None:
    """A pod with delivery's certificate at the signer's address does not see a header."""
    signer = Signer()

    async def scenario() -> None:
        async with signing(platform, signer) as target:
            assert await refusal(target, platform.folder("ingress"), peer="delivery") is grpc.StatusCode.UNAVAILABLE

    run(scenario())
    assert signer.calls == 0


def test_a_certificate_is_renewed_while_calls_run_and_none_fails(platform: Platform) -> None:
    """Both ends change to a new CA-signed certificate; a call that has begun ends well, and later calls use the new one."""
    ingress = platform.folder("ingress")

    async def scenario() -> None:
        signer = Signer("one")
        async with signing(platform, signer) as target, rpc.connect(target, "signer", ingress) as channel:
            signer.hold = asyncio.Event()
            running = asyncio.create_task(sign(channel, 30))
            while not signer.calls:
                await asyncio.sleep(0.01)
            before = channel._channel  # type: ignore[attr-defined]
            platform.folder("ingress")
            platform.folder("signer")
            hold, signer.hold = signer.hold, None
            answers = 0
            async with asyncio.timeout(10):
                while channel._channel is before:  # type: ignore[attr-defined]
                    assert await sign(channel) == "one"
                    answers += 1
                    await asyncio.sleep(0.02)
            assert await sign(channel) == "one"
            assert not running.done()
            hold.set()
            assert await running == "one"
            assert answers > 0

    run(scenario())


def test_an_expired_server_certificate_is_cured_by_renewal_without_a_restart(platform: Platform) -> None:
    platform.folder("signer", until=datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1))

    async def scenario() -> None:
        async with signing(platform, Signer("one")) as target:
            ingress = platform.folder("ingress")
            assert await refusal(target, ingress) is grpc.StatusCode.UNAVAILABLE
            platform.folder("signer")
            async with rpc.connect(target, "signer", ingress) as channel:
                async with asyncio.timeout(10):
                    while True:
                        with contextlib.suppress(grpc.RpcError):
                            assert await sign(channel, 1.0) == "one"
                            return

    run(scenario())


def test_half_a_renewal_keeps_the_last_certificate(platform: Platform) -> None:
    """tls.crt of one pair and tls.key of another, as a reader sees it in the middle of a change without an atomic link."""
    now = 0.0
    watched = mtls.Watched(platform.root / "signer", lambda: now)
    first = watched.current()
    (platform.root / "signer" / "tls.crt").write_bytes(platform.authority.issue(f"signer.{DOMAIN}").certificate)
    now = 10.0
    assert watched.current() is first
    platform.folder("signer")
    now = 20.0
    assert watched.current() is not first


def test_plain_tcp_is_refused_with_the_setting_that_is_missing() -> None:
    async def listen() -> None:
        async with rpc.serve("127.0.0.1:0", lambda _: None, grace_seconds=0):
            pass

    with pytest.raises(OSError, match="POSTROOM_GRPC_TLS"):
        run(listen())
    with pytest.raises(OSError, match="POSTROOM_GRPC_TLS"):
        rpc.connect("127.0.0.1:1", "signer")


def test_a_folder_without_a_usable_certificate_is_refused(platform: Platform, tmp_path: pathlib.Path) -> None:
    with pytest.raises(mtls.MaterialError, match=r"tls\.crt: No such file"):
        mtls.read(tmp_path / "nothing")
    (platform.root / "signer" / "tls.crt").write_text("no certificate")
    with pytest.raises(mtls.MaterialError, match="does not hold a certificate"):
        mtls.read(platform.root / "signer")


def test_calls_go_to_every_server_and_none_fails_when_one_vanishes(platform: Platform) -> None:
    """Two addresses of one name, as a headless Service has; one is stopped without a grace, the other takes all."""

    async def scenario() -> None:
        port, one, two = free_port(), Signer("one"), Signer("two")
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(signing(platform, one, "127.0.0.1", port))
            vanishing = contextlib.AsyncExitStack()
            await vanishing.enter_async_context(signing(platform, two, "127.0.0.2", port))
            channel = await stack.enter_async_context(rpc.connect(f"ipv4:127.0.0.1:{port},127.0.0.2:{port}", "signer", platform.folder("ingress")))
            async with asyncio.timeout(10):
                while not (one.calls and two.calls):
                    await sign(channel)
            await vanishing.aclose()
            seen = two.calls
            for _ in range(50):
                assert await sign(channel) == "one"
            assert two.calls == seen

    run(scenario())


def test_every_method_of_the_services_has_named_callers() -> None:
    services = [file.DESCRIPTOR.services_by_name.values() for file in (queue_pb2, signer_pb2, spool_pb2)]
    methods = [f"/{service.full_name}/{method.name}" for found in services for service in found for method in service.methods]
    assert len(methods) >= 9
    assert [method for method in methods if not any(mtls.may_call(service, method) for service in mtls.ANYBODY)] == []
    assert not mtls.may_call("cli", "/postroom.v1.Spool/Enqueue")
    assert not mtls.may_call("", "/grpc.health.v1.Health/Check")
