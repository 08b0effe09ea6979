"""`postroom check` against name servers and listeners over real sockets."""

import asyncio
import contextlib
import dataclasses
import pathlib
import shutil
import socket
from collections.abc import AsyncIterator

import pytest

from postroom_core.testing.dns import DnsServer
from postroom_core.testing.sink import Sink
from postroom_insight import check
from postroom_insight.finding import Finding, Grade
from postroom_insight.keys import OwnKey
from postroom_insight.lookups import Lookups
from postroom_insight.question import Question, Status

KEY = OwnKey("s1", "Ed25519", "A" * 43 + "=", f"v=DKIM1; k=ed25519; p={'A' * 43}=")
TARGET = check.Target("example.com", "mta.example.com", ("192.0.2.7",), (KEY,), blocklists=("bl.example",))
GOOD = [
    ("example.com", "NS", ["ns1.example.com.", "ns2.example.com."]),
    ("ns1.example.com", "A", ["127.0.0.2"]),
    ("ns2.example.com", "A", ["127.0.0.3"]),
    ("example.com", "TXT", ['"v=spf1 a:mta.example.com -all"']),
    ("example.com", "MX", ["10 mta.example.com."]),
    ("mta.example.com", "A", ["192.0.2.7"]),
    ("mta.example.com", "TXT", ['"v=spf1 a -all"']),
    ("7.2.0.192.in-addr.arpa", "PTR", ["mta.example.com."]),
    ("_dmarc.example.com", "TXT", ['"v=DMARC1; p=reject; rua=mailto:d@example.com"']),
    ("_mta-sts.example.com", "TXT", ['"v=STSv1; id=20261124"']),
    ("_smtp._tls.example.com", "TXT", ['"v=TLSRPTv1; rua=mailto:t@example.com"']),
    ("s1._domainkey.example.com", "TXT", [f'"{KEY.record}"']),
    ("2.0.0.127.bl.example", "A", ["127.0.0.2"]),
]


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[tuple[DnsServer, DnsServer, DnsServer, Lookups]]:
    """A resolver and the two authoritative servers of example.com, which answer at one port of different addresses."""
    async with contextlib.AsyncExitStack() as stack:
        resolver = await stack.enter_async_context(DnsServer())
        first = await stack.enter_async_context(DnsServer("127.0.0.2"))
        second = await stack.enter_async_context(DnsServer("127.0.0.3", first.port))
        for server in (resolver, first, second):
            for name, kind, texts in GOOD:
                server.set(name, kind, texts)
        yield resolver, first, second, Lookups((resolver.target,), authoritative_port=first.port, seconds=1.0)


def of(found: list[Finding], *checks: str) -> list[Finding]:
    return [finding for finding in found if finding.check in checks]


def test_a_domain_in_order_passes_every_check() -> None:
    async def main() -> list[Finding]:
        async with world() as (_, _, _, lookups):
            return await check.run(TARGET, lookups)

    found = asyncio.run(main())
    assert {finding.grade for finding in found if finding.check != "relay"} == {Grade.PASS}, found
    names = "spf dkim dmarc alignment return-path mta-sts tls-rpt ehlo ptr dnsbl relay"
    assert {finding.check for finding in found} == set(names.split())
    assert not check.failed(found)


def test_each_fault_is_found_with_the_record_to_publish() -> None:
    async def main() -> list[Finding]:
        async with world() as (resolver, _, second, lookups):
            resolver.set("example.com", "TXT", ['"v=spf1 ip4:198.51.100.1 -all"'])
            resolver.set("example.com", "MX", ["0 ."])
            resolver.set("7.2.0.192.in-addr.arpa", "PTR", ["liar.example."])
            resolver.set("mta.example.com", "A", ["198.51.100.9"])
            resolver.set("7.2.0.192.bl.example", "A", ["127.0.0.3"])
            resolver.remove("_dmarc.example.com")
            second.remove("s1._domainkey.example.com")
            return await check.run(TARGET, lookups)

    found = asyncio.run(main())
    assert check.failed(found)
    assert {f.check for f in found if f.grade is Grade.FAIL} == {"spf", "dkim", "dmarc", "return-path", "ehlo", "ptr", "dnsbl"}
    published = {str(finding.publish) for finding in found if finding.publish is not None}
    assert {
        'example.com. IN TXT "v=spf1 ip4:192.0.2.7 ip4:198.51.100.1 -all"',
        f's1._domainkey.example.com. IN TXT "{KEY.record}"',
        '_dmarc.example.com. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@example.com"',
        "example.com. IN MX 10 mta.example.com.",
        "mta.example.com. IN A 192.0.2.7",
        "7.2.0.192.in-addr.arpa. IN PTR mta.example.com.",
    } <= published
    (dkim,) = of(found, "dkim")
    assert dkim.seen == "127.0.0.3: no DKIM record"


def test_dns_that_does_not_answer_is_unknown_and_never_a_pass() -> None:
    async def main() -> list[Finding]:
        async with world() as (resolver, first, _, lookups):
            for name in ("example.com", "_dmarc.example.com", "7.2.0.192.in-addr.arpa"):
                resolver.fail(name, "SERVFAIL")
            resolver.fail("com", "SERVFAIL")
            first.fail("s1._domainkey.example.com", "REFUSED")
            return await check.run(TARGET, lookups)

    found = asyncio.run(main())
    assert {f.grade for f in of(found, "dmarc", "ptr", "return-path")} == {Grade.UNKNOWN}
    assert of(found, "spf")[0].grade is Grade.UNKNOWN
    assert check.failed(found)


def test_a_listener_that_relays_for_strangers_is_found() -> None:
    async def main() -> Finding:
        async with world() as (_, _, _, lookups), Sink() as sink:
            target = dataclasses.replace(TARGET, listeners=(("127.0.0.1", sink.port),), source="127.0.0.9")
            return of(await check.run(target, lookups), "relay")[0]

    finding = asyncio.run(main())
    assert finding.grade is Grade.FAIL
    assert "from 127.0.0.9 MAIL FROM:<probe@stranger.invalid> RCPT TO:<probe@elsewhere.invalid> was answered 250" in finding.seen


def test_a_listener_that_does_not_answer_is_unknown() -> None:
    async def main() -> Finding:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with world() as (_, _, _, lookups):
            target = dataclasses.replace(TARGET, listeners=(("127.0.0.1", port),), source="127.0.0.9")
            return of(await check.run(target, lookups), "relay")[0]

    assert asyncio.run(main()).grade is Grade.UNKNOWN


_ZONE = """$ORIGIN example.com.
$TTL 60
@ IN SOA ns1 hostmaster 1 3600 600 86400 60
@ IN NS ns1
ns1 IN A 127.0.0.1
s1._domainkey IN TXT "v=DKIM1; k=rsa; p={first}" "{second}"
"""


@pytest.mark.skipif(shutil.which("named") is None, reason="bind9 is not installed")
def test_bind_as_authoritative_server_answers_a_split_key_and_refuses_what_is_not_its_zone(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    public = "B" * 392
    (tmp_path / "zone").write_text(_ZONE.format(first=public[:200], second=public[200:]))
    (tmp_path / "named.conf").write_text(
        f'options {{ directory "{tmp_path}"; pid-file "{tmp_path}/pid"; session-keyfile "{tmp_path}/key"; managed-keys-directory "{tmp_path}";'
        f" listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; }};"
        f' controls {{}}; zone "example.com" {{ type primary; file "zone"; }};'
    )

    async def main() -> tuple[str, Status]:
        named = await asyncio.create_subprocess_exec("named", "-g", "-c", str(tmp_path / "named.conf"), stderr=asyncio.subprocess.PIPE)
        try:
            assert named.stderr is not None
            async with asyncio.timeout(30):
                while b"running" not in (line := await named.stderr.readline()):
                    assert line, "named ended"
            lookups = Lookups((f"127.0.0.1:{port}",), authoritative_port=port)
            own = OwnKey("s1", "RSA2048", public, f"v=DKIM1; k=rsa; p={public}")
            target = check.Target("example.com", "mta.example.com", keys=(own,))
            assert await lookups.authoritative("example.com") == [("127.0.0.1", port)]
            (dkim,) = of(await check.run(target, lookups), "dkim")
            foreign = await lookups.ask_at(("127.0.0.1", port), Question("other.example", "TXT"))
            return dkim.seen, foreign.status
        finally:
            named.terminate()
            await named.wait()

    assert asyncio.run(main()) == ("our RSA2048 key at 127.0.0.1", Status.FAILED)
