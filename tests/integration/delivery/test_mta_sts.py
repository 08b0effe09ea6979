"""MTA-STS from the TXT record to the event: a policy host with HTTPS, an MX host with TLS, both on loopback, both verified by a CA file."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from postroom.v1 import spool_pb2
from postroom_core.documents import TlsRule
from postroom_core.testing.certificate import Certificate, self_signed
from postroom_core.testing.faults import GarbageTls, Rule, script

from integration.delivery.harness import FAST, Running, delivery

ENDS = ("delivered", "deferred", "bounced", "expired", "dead-letter")
POLICY = "version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n"


@dataclass
class PolicyHost:
    """Serves one text and counts."""

    port: int = 0
    text: str = ""
    status: int = 200
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.host.partition(':')[0]}{request.path}")
        return web.Response(text=self.text, status=self.status, content_type=self.content_type, headers=self.headers)


@contextlib.asynccontextmanager
async def policy_host(certificate: Certificate) -> AsyncIterator[PolicyHost]:
    host = PolicyHost()
    app = web.Application()
    app.router.add_get("/{path:.*}", host.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.server_context())
    await site.start()
    host.port = runner.addresses[0][1]
    try:
        yield host
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def world(
    folder: pathlib.Path, *rules: Rule, mode: str = "enforce", mx: str = "mx.test", mx_names: tuple[str, ...] = ("mx.test",), **sink: Any
) -> AsyncIterator[tuple[Running, PolicyHost]]:
    """x.example has a policy; its MX host mx.test has a certificate for `mx_names` unless `tls` says otherwise."""
    folder.mkdir(exist_ok=True, parents=True)
    web_certificate, mx_certificate = self_signed("mta-sts.x.example"), self_signed(*mx_names)
    (folder / "ca.pem").write_bytes(web_certificate.certificate + mx_certificate.certificate)
    async with asyncio.timeout(30), policy_host(web_certificate) as host:
        host.text = POLICY.format(mode=mode, mx=mx)
        sink = {"tls": mx_certificate} | sink
        values: dict[str, Any] = {"mta_sts_port": host.port, "ca_file": str(folder / "ca.pem")} | sink
        async with delivery(folder, script=script(list(rules)), **values) as running:
            running.dns.set("_mta-sts.x.example", "TXT", ['"v=STSv1; id=1;"'])
            running.dns.set("mta-sts.x.example", "A", ["127.0.0.1"])
            yield running, host


async def end(running: Running, **values: Any) -> Any:
    return (await running.until(await running.enqueue("b@x.example", **values), *ENDS))[-1]


def test_enforce_delivers_over_verified_tls_and_the_event_says_so(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (running, host):
            event = await end(running)
            assert event.kind == "delivered"
            assert event.tls.endswith("certificate verified by MTA-STS enforce")
            assert host.asked == ["mta-sts.x.example/.well-known/mta-sts.txt"]

    asyncio.run(scenario())


def test_enforce_defers_what_opportunistic_tls_would_deliver(tmp_path: pathlib.Path) -> None:
    cases: dict[str, tuple[dict[str, Any], tuple[Rule, ...], str]] = {
        "wrong name": ({"mx_names": ("else.test",)}, (), "TLS failed"),
        "no STARTTLS": ({"tls": None}, (), "does not offer TLS"),
        "refused": ({}, (Rule("STARTTLS", b"454 4.7.0 not now"),), "refused STARTTLS"),
        "broken": ({}, (Rule("TLS", GarbageTls()),), "TLS failed"),
        "other hosts": ({"mx": "*.else.test"}, (), "is not in the MTA-STS policy"),
    }

    async def scenario() -> None:
        for name, (values, rules, words) in cases.items():
            async with world(tmp_path / name, *rules, **values) as (running, _):
                event = await end(running)
                assert (event.kind, getattr(event, "class"), words in event.text) == ("deferred", "tls", True), (name, event)
                assert "MTA-STS" in event.text
                assert running.sink.messages == []

    asyncio.run(scenario())


def test_the_next_host_gets_the_message_when_the_first_is_not_in_the_policy(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (running, _):
            running.dns.set("x.example", "MX", ["10 evil.test.", "20 mx.test."])
            running.dns.set("evil.test", "A", ["127.0.0.1"])
            event = await end(running)
            assert (event.kind, event.remote.partition("[")[0]) == ("delivered", "mx.test")

    asyncio.run(scenario())


def test_testing_delivers_and_tells_what_would_have_failed(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path / "bad", mode="testing", mx_names=("else.test",)) as (running, _):
            event = await end(running)
            assert event.kind == "delivered"
            assert event.tls.startswith("TLSv1.3")
            assert "MTA-STS testing: would have been refused" in event.tls
        async with world(tmp_path / "good", mode="testing") as (running, _):
            assert (await end(running)).tls.endswith("certificate verified by MTA-STS testing")

    asyncio.run(scenario())


def test_tls_required_no_is_delivered_whatever_the_policy(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, mx_names=("else.test",)) as (running, host):
            assert (await end(running, options=spool_pb2.MailOptions(tls_optional=True))).kind == "delivered"
            assert (await end(running)).kind == "deferred"
            assert host.asked

    asyncio.run(scenario())


def test_a_policy_outlives_a_restart_and_its_host_and_its_record(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, mx_names=("else.test",)) as (running, _):
            assert (await end(running)).kind == "deferred"
        async with world(tmp_path, mx_names=("else.test",)) as (running, host):
            running.dns.remove("_mta-sts.x.example")  # the attacker takes the record and the host away
            host.status = 500
            event = await end(running)
            assert (event.kind, "MTA-STS enforce" in event.text, host.asked) == ("deferred", True, [])

    asyncio.run(scenario())


def test_a_new_id_brings_the_new_policy(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, mx="*.else.test") as (running, host):
            running.dns.set("_mta-sts.x.example", "TXT", ['"v=STSv1; id=1;"'], ttl=0)
            assert (await end(running)).kind == "deferred"
            host.text = POLICY.format(mode="enforce", mx="mx.test")
            assert (await end(running)).kind == "deferred"
            running.dns.set("_mta-sts.x.example", "TXT", ['"v=STSv1; id=2;"'], ttl=0)
            event = await end(running)
            assert (event.kind, len(host.asked)) == ("delivered", 2), event

    asyncio.run(scenario())


def test_what_is_not_a_policy_served_as_the_standard_says_counts_for_nothing(tmp_path: pathlib.Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "status": {"status": 404},
        "redirect": {"status": 302, "headers": {"Location": "/elsewhere"}},
        "type": {"content_type": "text/html"},
        "size": {"text": POLICY.format(mode="enforce", mx="mx.else") + "x" * 65536},
        "text": {"text": "nonsense"},
    }

    async def scenario() -> None:
        for name, values in cases.items():
            async with world(tmp_path / name, mx="mx.else") as (running, host):
                for attribute, value in values.items():
                    setattr(host, attribute, value)
                assert (await end(running)).kind == "delivered", name
                assert len(host.asked) == 1, name

    asyncio.run(scenario())


def test_a_policy_host_at_a_forbidden_address_or_with_a_wrong_certificate_gives_no_policy(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path / "address", mx="mx.else", allowed_mx_networks=("127.0.0.1/32",)) as (running, host):
            running.dns.set("mta-sts.x.example", "A", ["127.0.0.2"])
            assert ((await end(running)).kind, host.asked) == ("delivered", [])
        async with world(tmp_path / "certificate", mx="mx.else") as (running, host):
            running.dns.set("_mta-sts.y.example", "TXT", ['"v=STSv1; id=1;"'])
            running.dns.set("mta-sts.y.example", "A", ["127.0.0.1"])
            event = (await running.until(await running.enqueue("b@y.example"), *ENDS))[-1]
            assert (event.kind, host.asked) == ("delivered", [])

    asyncio.run(scenario())


def test_a_rule_of_the_pool_demands_tls_where_the_domain_asks_for_nothing(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        rules = (TlsRule(name="bank", match=("bank.example",), policy="Verify"), TlsRule(name="rest", match=("*",), policy="Encrypt"))
        pool = FAST.model_copy(update={"tls_rules": rules})
        async with world(tmp_path, pool=pool, mx_names=("else.test",)) as (running, _):
            for domain, kind, words in (("bank.example", "deferred", "the pool's rule"), ("y.example", "delivered", "")):
                event = (await running.until(await running.enqueue(f"b@{domain}"), *ENDS))[-1]
                assert (event.kind, words in event.text) == (kind, True), event

    asyncio.run(scenario())


# REQUIRETLS (RFC 8689)


def test_requiretls_goes_only_to_a_verified_host_that_offers_it(tmp_path: pathlib.Path) -> None:
    option = spool_pb2.MailOptions(require_tls=True)
    offered = ("PIPELINING", "8BITMIME", "REQUIRETLS")

    async def scenario() -> None:
        async with world(tmp_path / "good", extensions=offered) as (running, _):
            event = await end(running, options=option)
            assert (event.kind, "MTA-STS for REQUIRETLS" in event.tls) == ("delivered", True), event
            assert "REQUIRETLS" in running.sink.messages[0].mail_parameters
            assert running.sink.violations == []
            # Nobody vouches for the host of this domain.
            other = (await running.until(await running.enqueue("b@y.example", options=option, sender=""), *ENDS))[-1]
            assert (other.kind, "neither DNSSEC nor MTA-STS" in other.text) == ("dead-letter", True)
        cases: dict[str, dict[str, Any]] = {"not offered": {}, "wrong name": {"mx_names": ("else.test",), "extensions": offered}}
        for name, values in cases.items():
            async with world(tmp_path / name, **values) as (running, _):
                event = await end(running, options=option)
                assert (event.kind, "for REQUIRETLS" in event.text) == ("bounced", True), (name, event)
                assert running.sink.messages == []  # nor does the notice about it go to a host without REQUIRETLS
