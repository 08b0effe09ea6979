"""Reports about TLS (RFC 8460) from sessions with real hosts to the report that leaves: numbers are those of the sessions."""

import asyncio
import contextlib
import functools
import gzip
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
from aiohttp import web

from postroom_core.documents import Pool, SenderDomain
from postroom_core.snapshot import Snapshot
from postroom_core.testing.certificate import self_signed
from postroom_core.testing.clock import FakeClock
from postroom_core.testing.dns import DnsServer
from postroom_core.testing.faults import GarbageTls, Rule
from postroom_delivery import https, routing
from postroom_delivery.pools import Pools
from postroom_delivery.resolver import Resolver
from postroom_delivery.spool.model import Limits, ListFilter
from postroom_delivery.spool.sqlite import SqliteSpool, open_sqlite
from postroom_delivery.spool.tls_tally import TlsSession
from postroom_delivery.tls_reporting import SPREAD_MS, TlsReporting, World
from postroom_delivery.tlsrpt import DAY_MS, Reporter

from integration.delivery.hops import LOOPBACK
from integration.delivery.test_mta_sts import POLICY, end, world
from unit.delivery.test_tlsrpt import SCHEMA

SENDER = SenderDomain(name="d.example", tenant="t", signed=True, pool="default/main")


@contextlib.asynccontextmanager
async def spool_at(folder: pathlib.Path, now: int = 0) -> AsyncIterator[SqliteSpool]:
    async with open_sqlite(folder / "spool.sqlite3", "reader", now, lambda _: Limits(1, None, 1)) as spool:
        yield spool


async def counted(folder: pathlib.Path, day: int) -> dict[tuple[str, str], int]:
    """(kind of policy, result) → sessions of x.example."""
    async with spool_at(folder) as spool:
        found = await spool.tls_counts(day, "x.example")
    return {(one.session.policy.partition("\n")[0], one.session.result): one.count for one in found}


def test_each_session_counts_once_under_its_policy_and_by_its_type(tmp_path: pathlib.Path) -> None:
    enforced = POLICY.format(mode="enforce", mx="mx.test")
    cases: dict[str, tuple[dict[str, Any], tuple[Rule, ...], dict[str, Any], dict[tuple[str, str], int]]] = {
        "verified": ({}, (), {}, {("sts", ""): 1}),
        "name": ({"mx_names": ("else.test",)}, (), {}, {("sts", "certificate-host-mismatch"): 1}),
        "no TLS": ({"tls": None}, (), {}, {("sts", "starttls-not-supported"): 1}),
        "refused": ({}, (Rule("STARTTLS", b"454 4.7.0 not now"),), {}, {("sts", "starttls-not-supported"): 1}),
        "garbage": ({}, (Rule("TLS", GarbageTls()),), {}, {("sts", "validation-failure"): 1}),
        "stranger": ({"tls": self_signed("mx.test")}, (), {}, {("sts", "certificate-not-trusted"): 1}),
        "not in the policy": ({"mx": "*.else.test"}, (), {}, {("sts", "validation-failure"): 1}),
        "testing": ({"mode": "testing", "mx_names": ("else.test",)}, (), {}, {("sts", "certificate-host-mismatch"): 1}),
        "no fetch": ({}, (), {"status": 500}, {("sts", "sts-policy-fetch-error"): 1, ("no-policy-found", ""): 1}),
        "bad policy": ({}, (), {"text": enforced.replace("STSv1", "STSv9")}, {("sts", "sts-policy-invalid"): 1, ("no-policy-found", ""): 1}),
    }

    async def scenario() -> None:
        for name, (values, rules, host_values, expected) in cases.items():
            folder = tmp_path / name
            async with world(folder, *rules, tls_report_sender="tls@d.example", **values) as (running, host):
                for attribute, value in host_values.items():
                    setattr(host, attribute, value)
                await end(running)
                day = running.now() // DAY_MS
            found = await counted(folder, day)
            attempts = max(found.values(), default=0)  # a deferred message may have been tried again before the end
            assert dict.fromkeys(expected, attempts) == found, (name, found)
            assert attempts == 1 or "sts" in next(iter(expected)), name

    asyncio.run(scenario())


def test_a_policy_host_with_a_wrong_certificate_and_hosts_without_a_policy(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, tls_report_sender="tls@d.example") as (running, _):
            day = running.now() // DAY_MS
            running.dns.set("_mta-sts.y.example", "TXT", ['"v=STSv1; id=1;"'])
            running.dns.set("mta-sts.y.example", "A", ["127.0.0.1"])
            for domain in ("y.example", "z.example"):
                await running.until(await running.enqueue(f"b@{domain}"), "delivered")
        async with spool_at(tmp_path) as spool:
            y, z = [[one.session.result for one in await spool.tls_counts(day, domain)] for domain in ("y.example", "z.example")]
        assert (sorted(y), z) == (["", "sts-webpki-invalid"], [""])

    asyncio.run(scenario())


def test_nothing_is_counted_when_nobody_reports(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (running, _):
            day = running.now() // DAY_MS
            await end(running)
        assert await counted(tmp_path, day) == {}

    asyncio.run(scenario())


class Office:
    """A spool with a day's results, processes that report, and a host that takes reports by HTTPS."""

    def __init__(self, spool: SqliteSpool, dns: DnsServer, ca_file: str, clock: FakeClock) -> None:
        self.spool, self.dns, self.clock = spool, dns, clock
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        self.port = 0
        pools = Pools()
        pools.replace(Snapshot("1", (Pool(name="default/main"), SENDER)))
        resolver = Resolver((dns.target,))
        way = https.Https(resolver, functools.partial(routing.may_dial, allowed=LOOPBACK), https.context(ca_file))
        self.reporters = [
            TlsReporting(spool, pools, World(resolver, way), Reporter("tls@d.example"), name, clock) for name in ("one", "two", "three")
        ]

    def ask(self) -> None:
        record = f"v=TLSRPTv1; rua=mailto:rua@x.example,https://reports.test:{self.port}/v1"
        self.dns.set("_smtp._tls.x.example", "TXT", [f'"{record}"'], ttl=0)

    async def take(self, request: web.Request) -> web.Response:
        self.posted.append((request.content_type, json.loads(gzip.decompress(await request.read()))))
        return web.Response(status=self.status)

    async def look(self) -> int:
        return sum(await asyncio.gather(*(reporter.look() for reporter in self.reporters)))

    async def mails(self) -> list[tuple[str, str]]:
        return [(row.id, row.recipients[0].address) for row in await self.spool.list_messages(ListFilter())]


@contextlib.asynccontextmanager
async def office(folder: pathlib.Path) -> AsyncIterator[Office]:
    clock, certificate = FakeClock(20_000 * DAY_MS), self_signed("reports.test")
    (folder / "ca.pem").write_bytes(certificate.certificate)
    async with DnsServer() as dns, spool_at(folder, clock.now_ms()) as spool:
        made = Office(spool, dns, str(folder / "ca.pem"), clock)
        app = web.Application()
        app.router.add_post("/v1", made.take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.server_context())
        await site.start()
        made.port = runner.addresses[0][1]
        dns.set("reports.test", "A", ["127.0.0.1"])
        made.ask()
        failed = TlsSession("x.example", "no-policy-found", "starttls-not-supported", "mx.test", "192.0.2.1")
        await spool.settle(clock.now_ms() - 1, (), (), [TlsSession("x.example", "no-policy-found")] * 3 + [failed] * 2)
        await spool.settle(clock.now_ms() - 1, (), (), [TlsSession("silent.example", "no-policy-found")])
        await spool.settle(clock.now_ms(), (), (), [TlsSession("x.example", "no-policy-found")])
        try:
            yield made
        finally:
            await runner.cleanup()


def test_a_day_is_told_once_by_mail_and_by_https_whoever_looks(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as place:
            await place.clock.advance(SPREAD_MS / 1000)
            assert await place.look() == 2
            ((kind, document),) = place.posted
            assert kind == "application/tlsrpt+gzip"
            jsonschema.validate(document, SCHEMA)
            (policy,) = document["policies"]
            assert policy["summary"] == {"total-successful-session-count": 3, "total-failure-session-count": 2}
            ((message_id, address),) = await place.mails()
            assert address == "rua@x.example"
            row = await place.spool.show(message_id)
            assert row is not None
            assert (row.tenant, row.domain, row.reverse_path, row.options.tls_optional) == ("t", "d.example", "tls@d.example", True)
            assert f"Report-ID: <{message_id}@d.example>".encode() in row.headers
            assert b"TLS-Report-Domain: x.example\r\nTLS-Report-Submitter: d.example\r\n" in row.headers
            assert await place.look() == 0
            assert await place.spool.tls_domains(20_000, "", 9) == ["x.example"]  # today's are tomorrow's report
            assert len(place.posted) == 1

    asyncio.run(scenario())


def test_reports_are_spread_over_the_first_hours_of_the_day(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as place:
            one, other = place.reporters[:2]
            times = {one.due_at(19_999, f"x{number}.example") - 20_000 * DAY_MS for number in range(100)}
            assert (len(times), min(times) < SPREAD_MS / 10, max(times) < SPREAD_MS) == (100, True, True)
            due = one.due_at(19_999, "x.example")
            assert due == other.due_at(19_999, "x.example")
            await place.clock.advance((due - place.clock.now_ms()) / 1000 - 1)
            await place.look()
            assert place.posted == []
            await place.clock.advance(1)
            await place.look()
            assert len(place.posted) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["status", "address", "dns"])
def test_what_cannot_be_sent_is_tried_again_and_the_rest_is_not_sent_twice(tmp_path: pathlib.Path, fault: str) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as place:
            await place.clock.advance(SPREAD_MS / 1000)
            if fault == "status":
                place.status = 503
            elif fault == "address":
                place.dns.set("reports.test", "A", ["10.0.0.1"], ttl=0)
            else:
                place.dns.fail("_smtp._tls.x.example", "SERVFAIL")
            assert await place.look() == 1  # the domain that asks for nothing
            assert len(await place.mails()) == (fault != "dns")
            assert len(place.posted) == (fault == "status")
            place.status, before = 200, len(place.posted)
            place.dns.set("reports.test", "A", ["127.0.0.1"], ttl=0)
            place.dns.remove("_smtp._tls.x.example")
            place.ask()
            await place.clock.advance(3600)
            assert await place.look() == 1
            assert (len(place.posted) - before, len(await place.mails())) == (1, 1)

    asyncio.run(scenario())


def test_a_day_that_could_not_be_told_within_the_next_is_forgotten(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with office(tmp_path) as place:
            await place.clock.advance(2 * DAY_MS / 1000)
            await place.look()
            assert (place.posted, await place.spool.tls_domains(19_999, "", 9)) == ([], [])

    asyncio.run(scenario())
