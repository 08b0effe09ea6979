"""A world of MTA-STS in a network namespace of its own: a name server on port 53, policy hosts on port 443, postfix-mta-sts-resolver beside us.

Run as a program by test_sts_world.py inside `unshare`; prints one JSON object: for each domain the policy that we find, and the foreign resolver.
"""

import asyncio
import contextlib
import datetime
import functools
import json
import os
import pathlib
import ssl
import subprocess
import sys
from dataclasses import dataclass, field

from aiohttp import web
from postfix_mta_sts_resolver.resolver import STSResolver

from postroom_core.clock import SystemClock
from postroom_core.testing.certificate import Authority
from postroom_core.testing.dns import DnsServer
from postroom_delivery import https, routing
from postroom_delivery.resolver import Resolver
from postroom_delivery.sts import Policy
from postroom_delivery.sts_policies import StsPolicies, fetcher

from integration.delivery.hops import LOOPBACK, DictMemory

ADDRESS = "127.0.0.1"
LINES = {"version": "STSv1", "mode": "enforce", "mx": "mx.test", "max_age": "86400"}


def policy(*more: str, ending: str = "\r\n", **changes: str) -> str:
    return ending.join([*(f"{key}: {value}" for key, value in (LINES | changes).items() if value), *more, ""])


@dataclass
class Case:
    """A domain's records, and what its policy host serves."""

    text: str = field(default_factory=policy)
    records: tuple[str, ...] = ('"v=STSv1; id=20261125;"',)
    status: int = 200
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    certificate: str = "good"  # good, expired, name, stranger


CASES = {
    "enforce": Case(),
    "testing": Case(policy(mode="testing")),
    "none": Case(policy(mode="none")),
    "nonewithoutmx": Case(policy(mode="none", mx="")),
    "lf": Case(policy(ending="\n")),
    "wildcard": Case(policy("mx: *.mail.test", "mx: backup.test")),
    "order": Case("max_age: 60\r\nmx: a.test\r\nmode: enforce\r\nversion: STSv1\r\n"),
    "extended": Case(policy("future: field")),
    "spaces": Case("version:STSv1\r\nmode:   enforce  \r\nmx: mx.test\t\r\nmax_age: 86400\r\n"),
    "strings": Case(records=('"v=STSv1; " "id=1;"',)),
    "otherrecords": Case(records=('"v=spf1 -all"', '"v=STSv1; id=1;"')),
    "norecord": Case(records=()),
    "tworecords": Case(records=('"v=STSv1; id=1;"', '"v=STSv1; id=2;"')),
    "noid": Case(records=('"v=STSv1;"',)),
    "otherversion": Case(records=('"v=STSv2; id=1;"',)),
    "missing": Case(status=404),
    "broken": Case(status=500),
    "redirect": Case(status=302, headers={"Location": "https://mta-sts.enforce.test/.well-known/mta-sts.txt"}),
    "html": Case(content_type="text/html"),
    "large": Case(policy("x: " + "y" * 65536)),
    "expired": Case(certificate="expired"),
    "wrongname": Case(certificate="name"),
    "stranger": Case(certificate="stranger"),
    "nonsense": Case("nonsense"),
    "badversion": Case(policy(version="STSv2")),
    "badmode": Case(policy(mode="Enforce")),
    "nomode": Case(policy(mode="")),
    "nomx": Case(policy(mx="")),
    "noage": Case(policy(max_age="")),
    "badage": Case(policy(max_age="soon")),
    "negative": Case(policy(max_age="-1")),
    "badid": Case(records=('"v=STSv1; id=not-alphanumeric;"',)),
    "longage": Case(policy(max_age="99999999")),
    "badmx": Case(policy(mx="mx.test, mx2.test")),
}


def make_certificates(folder: pathlib.Path) -> None:
    """One for each policy host, and ca.pem with the authority that is trusted."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    good, stranger = Authority("good"), Authority("stranger")
    (folder / "ca.pem").write_bytes(good.certificate)
    for name, case in CASES.items():
        issuer = stranger if case.certificate == "stranger" else good
        until = {"until": yesterday} if case.certificate == "expired" else {}
        issued = issuer.issue("else.test" if case.certificate == "name" else f"mta-sts.{name}.test", **until)
        (folder / f"{name}.pem").write_bytes(issued.key + issued.certificate)


class Hosts:
    """All policy hosts: one port, a certificate for each name."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        for name in CASES:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / f"{name}.pem")
            self._contexts[f"mta-sts.{name}.test"] = context

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        tls.context = self._contexts[name or "mta-sts.enforce.test"]

    async def answer(self, request: web.Request) -> web.Response:
        case = CASES[request.host.split(".")[1]]
        return web.Response(text=case.text, status=case.status, content_type=case.content_type, headers=case.headers)

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/mta-sts.txt", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        context = self._contexts["mta-sts.enforce.test"]
        context.sni_callback = self._choose
        await web.TCPSite(runner, ADDRESS, 443, ssl_context=context).start()


def ours(found: Policy | None) -> dict[str, object] | None:
    return None if found is None else {"mode": found.mode.value, "mx": list(found.patterns), "max_age": found.max_age}


async def foreign(resolver: STSResolver, domain: str) -> dict[str, object] | None:
    _, found = await resolver.resolve(domain)
    if found is None:
        return None
    values = found[1]
    return {"mode": values["mode"], "mx": values["mx"], "max_age": values["max_age"]}


async def main(folder: pathlib.Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer(ADDRESS, 53))
        await Hosts(folder).start(stack)
        for name, case in CASES.items():
            dns.set(f"mta-sts.{name}.test", "A", [ADDRESS])
            if case.records:
                dns.set(f"_mta-sts.{name}.test", "TXT", list(case.records))
        clock, resolver = SystemClock(), Resolver((dns.target,))
        way = https.Https(resolver, functools.partial(routing.may_dial, allowed=LOOPBACK), https.context(str(folder / "ca.pem")))
        policies = StsPolicies(resolver, fetcher(way, 443), DictMemory(), clock)
        other = STSResolver(timeout=5, loop=asyncio.get_running_loop())
        results = {}
        for name in CASES:
            domain = f"{name}.test"
            results[name] = {"ours": ours(await policies.of(domain)), "trouble": policies.trouble(domain), "foreign": await foreign(other, domain)}
    print(json.dumps(results))


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    if sys.argv[2:] != ["serve"]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        (place / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        subprocess.run(["mount", "--bind", str(place / "resolv.conf"), "/etc/resolv.conf"], check=True)
        make_certificates(place)
        # The foreign resolver trusts what the system trusts, which is read once, when its HTTP library is loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv, "serve"], os.environ | {"SSL_CERT_FILE": str(place / "ca.pem")})
    asyncio.run(main(place))
