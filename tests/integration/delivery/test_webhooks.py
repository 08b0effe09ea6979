"""Webhooks from the accepted message to a receiver over HTTPS: real sockets, real certificates, both engines of the spool."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from grpc import aio

from postroom.v1 import webhooks_pb2, webhooks_pb2_grpc
from postroom_core import rpc
from postroom_core.clock import SystemClock
from postroom_core.documents import SenderDomain, Webhook
from postroom_core.snapshot import Snapshot
from postroom_core.testing.certificate import Certificate, self_signed
from postroom_core.testing.dns import DnsServer
from postroom_core.testing.faults import Rule, script
from postroom_delivery.https import Https, context
from postroom_delivery.resolver import Resolver
from postroom_delivery.spool.model import Limits
from postroom_delivery.spool.postgres import open_postgres
from postroom_delivery.webhook_sender import Webhooks

from contract.postgres import Server
from contract.test_rollups import send
from integration.delivery.harness import Running, delivery

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Receiver:
    """Checks signatures as a receiver should, keeps what it took, and fails as it is told."""

    port: int = 0
    fail: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    taken: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            return await self._answer(request)
        finally:
            self.busy -= 1
            self.news.set()

    async def _answer(self, request: web.Request) -> web.Response:
        content = await request.read()
        identity, at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        wanted = base64.b64encode(hmac.digest(KEY, f"{identity}.{at}.".encode() + content, hashlib.sha256)).decode()
        assert request.headers["webhook-signature"] == f"v1,{wanted}"
        assert request.content_type == "application/cloudevents-batch+json"
        self.requests.append(identity)
        if self.fail:
            return web.Response(status=self.fail.pop(0), headers=self.headers)
        self.taken += json.loads(content)
        return web.Response(status=204)

    async def until(self, done: Callable[[list[dict[str, Any]]], bool]) -> None:
        async with asyncio.timeout(30):
            while not done(self.taken):
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def receiving(certificate: Certificate) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/in", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.server_context()).start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


def sender(port: int, host: str = "hooks.test", **fields: Any) -> SenderDomain:
    events = ("delivered", "deferred", "bounced", "complained", "suppressed")
    values: dict[str, Any] = {"name": "app", "url": f"https://{host}:{port}/in", "events": events, "secrets": (SECRET,)}
    return SenderDomain(name="d.example", tenant="default", signed=False, webhooks=(Webhook.model_validate(values | fields),))


@contextlib.asynccontextmanager
async def world(folder: pathlib.Path, *rules: Rule, host: str = "hooks.test", **given: Any) -> AsyncIterator[tuple[Running, Receiver]]:
    certificate = self_signed("hooks.test")
    (folder / "ca.pem").write_bytes(certificate.certificate)
    values: dict[str, Any] = {"ca_file": str(folder / "ca.pem"), "script": script(list(rules))} | given
    async with (
        asyncio.timeout(60),
        receiving(certificate) as receiver,
        delivery(folder, domains=[sender(receiver.port, host)], **values) as running,
    ):
        running.dns.set("hooks.test", "A", ["127.0.0.1"])
        await known(folder)
        yield running, receiver


async def known(folder: pathlib.Path) -> None:
    """Until the target has its place among the events: what happened before is not told."""
    await until_state(folder, lambda hook: hook.health != "new")


async def states(folder: pathlib.Path, done: Callable[[webhooks_pb2.Webhook], object]) -> bool:
    async with rpc.connect(f"unix:{folder}/delivery.sock") as channel:
        (hook,) = (await stub(channel).List(webhooks_pb2.WebhooksRequest())).webhooks
        return bool(done(hook))


def stub(channel: aio.Channel) -> "webhooks_pb2_grpc.WebhooksAsyncStub":
    return webhooks_pb2_grpc.WebhooksStub(channel)


async def until_state(folder: pathlib.Path, done: Callable[[webhooks_pb2.Webhook], object]) -> None:
    async with asyncio.timeout(30):
        while not await states(folder, done):
            await asyncio.sleep(0.1)


def types(receiver: Receiver, message: str) -> list[str]:
    return [event["type"].rpartition(".")[2] for event in receiver.taken if event["subject"] == message]


def test_what_happens_is_told_in_order_and_signed(tmp_path: pathlib.Path) -> None:
    rules = [Rule("RCPT", b"450 4.2.0 later", argument="slow@", times=1), Rule("RCPT", b"550 5.1.1 nobody", argument="gone@", times=1)]

    async def scenario() -> None:
        async with world(tmp_path, *rules) as (running, receiver):
            slow = await running.enqueue("slow@x.example")
            gone = await running.enqueue("gone@x.example")
            await running.until(slow, "delivered")
            await running.until(gone, "bounced")
            await receiver.until(lambda taken: len(taken) >= 3)
            assert types(receiver, slow) == ["deferred", "delivered"]
            assert types(receiver, gone) == ["bounced"]
            (bounced,) = [event for event in receiver.taken if event["subject"] == gone]
            assert {name: bounced["data"][name] for name in ("recipient", "domain", "code", "enhancedCode", "class", "kind")} == {
                "recipient": "gone@x.example",
                "domain": "d.example",
                "code": 550,
                "enhancedCode": "5.1.1",
                "class": "unknown-user",
                "kind": "bounced",
            }

    asyncio.run(scenario())


def test_a_target_that_fails_gets_everything_later_once_and_in_order(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (running, receiver):
            receiver.fail = [500, 302, 404]
            receiver.headers = {"Location": f"https://hooks.test:{receiver.port}/in"}
            first = await running.enqueue("b@x.example")
            await until_state(tmp_path, lambda hook: hook.failures >= 1 and hook.health == "failing" and hook.waiting >= 1)
            second = await running.enqueue("b@x.example")
            await receiver.until(lambda taken: len(taken) == 2)
            assert [event["subject"] for event in receiver.taken] == [first, second]
            assert len(set(receiver.requests[:4])) == 1
            await until_state(tmp_path, lambda hook: (hook.sent, hook.waiting, hook.failures, hook.health) == (2, 0, 0, "working"))

    asyncio.run(scenario())


def test_addresses_that_may_not_be_dialled_and_wrong_certificates_are_not_told(tmp_path: pathlib.Path) -> None:
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "private": ({"host": "inside.test"}, "may not be dialled"),
        "certificate": ({"host": "other.test"}, "certificate"),
    }

    async def scenario() -> None:
        for name, (values, words) in cases.items():
            folder = tmp_path / name
            folder.mkdir()
            async with world(folder, **values) as (running, receiver):
                running.dns.set("inside.test", "A", ["10.0.0.1"])
                running.dns.set("other.test", "A", ["127.0.0.1"])
                await running.until(await running.enqueue("b@x.example"), "delivered")
                await until_state(folder, lambda hook, words=words: hook.failures >= 1 and words in hook.last_text)  # type: ignore[misc]
                assert receiver.requests == []

    asyncio.run(scenario())


def test_what_was_not_told_before_a_stop_is_told_after_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        certificate = self_signed("hooks.test")
        (tmp_path / "ca.pem").write_bytes(certificate.certificate)
        async with asyncio.timeout(60), receiving(certificate) as receiver:
            values: dict[str, Any] = {"ca_file": str(tmp_path / "ca.pem"), "domains": [sender(receiver.port)]}
            async with delivery(tmp_path, **values) as running:
                await known(tmp_path)  # its name is not in DNS: nothing arrives
                running.dns.set("hooks.test", "A", [])
                message = await running.enqueue("b@x.example")
                await until_state(tmp_path, lambda hook: hook.failures >= 1)
            async with delivery(tmp_path, **values) as running:
                running.dns.set("hooks.test", "A", ["127.0.0.1"])
                await receiver.until(lambda taken: len(taken) == 1)
                assert types(receiver, message) == ["delivered"]

    asyncio.run(scenario())


def test_one_of_several_processes_tells_and_another_goes_on_when_it_is_gone(postgres_server: Server) -> None:
    async def scenario() -> None:
        url, certificate = postgres_server.database(), self_signed("hooks.test")
        async with (
            asyncio.timeout(60),
            receiving(certificate) as receiver,
            DnsServer() as dns,
            open_postgres(lambda: url, "one", lambda key: Limits(100, None, 100)) as one,
            open_postgres(lambda: url, "two", lambda key: Limits(100, None, 100)) as two,
        ):
            dns.set("hooks.test", "A", ["127.0.0.1"])
            tls = context("")
            tls.load_verify_locations(cadata=certificate.certificate.decode())
            tasks, senders = {}, {}
            for name, spool in (("one", one), ("two", two)):
                webhooks = Webhooks(spool, Https(Resolver((dns.target,)), lambda address: True, tls), SystemClock())
                webhooks.replace(Snapshot("1", [sender(receiver.port)]))
                senders[name], tasks[name] = webhooks, asyncio.create_task(webhooks.run())
            while not await one.hooks():
                await asyncio.sleep(0.05)
            clock = SystemClock()
            for number in range(20):
                await send(one, f"m{number}", clock.now_ms())
            await receiver.until(lambda taken: len(taken) == 20)
            holder = postgres_server.sql("SELECT holder FROM duty WHERE name = 'webhooks'", url)
            tasks[holder].cancel()  # it gives the duty back
            await asyncio.gather(tasks[holder], return_exceptions=True)
            other = tasks["two" if holder == "one" else "one"]
            senders["two" if holder == "one" else "one"].replace(Snapshot("2", [sender(receiver.port)]))  # it looks now, not after some seconds
            await send(one, "last", clock.now_ms())
            await receiver.until(lambda taken: len(taken) == 21)
            other.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            assert receiver.most_busy == 1
            order = defaultdict(list)
            for event in receiver.taken:
                order[event["subject"]].append(event["type"])
            assert order == {f"m{number}": ["dev.postroom.mail.delivered"] for number in range(20)} | {"last": ["dev.postroom.mail.delivered"]}

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [200, 299])
def test_every_2xx_counts(tmp_path: pathlib.Path, status: int) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (running, receiver):
            receiver.fail = [status]
            await running.enqueue("b@x.example")
            await until_state(tmp_path, lambda hook: hook.sent == 1)
            assert receiver.taken == []

    asyncio.run(scenario())
