"""The kit's name server, asked by dnspython's resolver: what that resolver concludes is what delivery will see."""

import asyncio
from collections.abc import Awaitable, Callable

import dns.asyncresolver
import dns.exception
import dns.resolver
import pytest

from postroom_core.testing.dns import DnsServer

Test = Callable[[DnsServer, dns.asyncresolver.Resolver], Awaitable[None]]


def run(test: Test) -> None:
    async def main() -> None:
        async with DnsServer() as server:
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers = [server.address]
            resolver.port = server.port
            resolver.lifetime = 5.0
            await test(server, resolver)

    asyncio.run(main())


def test_records_arrive_with_their_ttl() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        server.set("Example.org", "MX", ["10 mx1.example.org.", "20 mx2.example.org."], ttl=7)
        answer = await resolver.resolve("example.ORG", "MX")
        assert sorted((record.preference, str(record.exchange).lower()) for record in answer) == [(10, "mx1.example.org."), (20, "mx2.example.org.")]
        assert answer.rrset is not None and answer.rrset.ttl == 7

    run(check)


def test_a_known_name_without_the_type_is_no_answer_and_an_unknown_one_nxdomain() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        server.set("known.example", "A", ["192.0.2.1"])
        with pytest.raises(dns.resolver.NoAnswer):
            await resolver.resolve("known.example", "MX")
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolver.resolve("unknown.example", "MX")

    run(check)


def test_the_default_answers_for_any_name_that_was_not_set() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        server.set("*", "MX", ["1 sink.invalid."])
        server.set("own.example", "MX", ["5 mx.own.example."])
        assert [str(record.exchange) for record in await resolver.resolve("any.example", "MX")] == ["sink.invalid."]
        assert [str(record.exchange) for record in await resolver.resolve("own.example", "MX")] == ["mx.own.example."]
        with pytest.raises(dns.resolver.NoAnswer):
            await resolver.resolve("own.example", "A")

    run(check)


def test_an_alias_is_followed_and_a_loop_of_aliases_ends() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        server.set("www.example", "CNAME", ["real.example."])
        server.set("real.example", "A", ["192.0.2.9"])
        server.set("loop.example", "CNAME", ["loop.example."])
        assert [record.address for record in await resolver.resolve("www.example", "A")] == ["192.0.2.9"]
        with pytest.raises(dns.exception.DNSException):
            await resolver.resolve("loop.example", "A")

    run(check)


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED"])
def test_an_error_code_is_no_nameserver(fault: str) -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        server.fail("bad.example", fault)  # type: ignore[arg-type]
        resolver.lifetime = 1.0
        with pytest.raises((dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout)):
            await resolver.resolve("bad.example", "A")

    run(check)


def test_nxdomain_and_silence_can_be_asked_for() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        server.set("*", "A", ["192.0.2.1"])
        server.fail("gone.example", "NXDOMAIN")
        server.fail("mute.example", "TIMEOUT")
        resolver.lifetime = 0.2
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolver.resolve("gone.example", "A")
        with pytest.raises(dns.resolver.LifetimeTimeout):
            await resolver.resolve("mute.example", "A")

    run(check)


def test_a_truncated_answer_is_asked_again_over_tcp() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        server.set("long.example", "TXT", [f'"{index} {"x" * 200}"' for index in range(40)])
        server.set("short.example", "A", ["192.0.2.1"])
        server.fail("short.example", "TRUNCATED")
        assert len(await resolver.resolve("long.example", "TXT")) == 40
        assert len(await resolver.resolve("short.example", "A")) == 1
        assert [query.transport for query in server.queries] == ["udp", "tcp", "udp", "tcp"]

    run(check)


def test_garbage_gets_silence_and_the_server_lives_on() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        assert server.answer(b"\x00\x01garbage", "udp") is None
        assert server.answer(b"", "tcp") is None
        server.set("alive.example", "A", ["192.0.2.1"])
        assert len(await resolver.resolve("alive.example", "A")) == 1

    run(check)


def test_a_record_that_is_none_is_refused_when_it_is_set() -> None:
    async def check(server: DnsServer, resolver: dns.asyncresolver.Resolver) -> None:
        with pytest.raises(dns.exception.DNSException):
            server.set("bad.example", "A", ["not an address"])

    run(check)
