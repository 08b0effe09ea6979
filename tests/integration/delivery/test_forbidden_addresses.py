"""No connection to an address that may not be dialled (A15): what leaves the process is read from its system calls, not from our own code."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

FORBIDDEN = (
    *("127.0.0.1", "10.0.0.7", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "192.0.0.192", "168.63.129.16"),
    *("::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.7", "64:ff9b::a00:7", "2002:a00:7::", "::10.0.0.7"),
)
# The name server is on 127.0.0.53. 127.0.0.2 stands for a public address: the first answer for rebind.test, every later one is forbidden.
PROGRAM = """
import asyncio, functools, ipaddress, sys
from postroom_core.clock import SystemClock
from postroom_core.documents import Pool
from postroom_core.testing.dns import DnsServer
from postroom_delivery import https, routing
from postroom_delivery.hop import Hops, HopSettings
from postroom_delivery.resolver import Resolver
from postroom_delivery.sts_policies import StsPolicies, fetcher
from postroom_delivery.targets import Lookups, Targets
from integration.delivery.hops import DictMemory

class Rebinding(DnsServer):
    asked = 0

    def answer(self, wire, transport):
        answer = super().answer(wire, transport)
        if self.queries and self.queries[-1].name.startswith("rebind.test") and self.queries[-1].type == "A":
            self.set("rebind.test", "A", ["127.0.0.1"], ttl=0)
        return answer

async def main(addresses):
    async with Rebinding("127.0.0.53") as dns:
        clock, memory, resolver = SystemClock(), DictMemory(), Resolver((dns.target,))
        fetch = fetcher(https.Https(resolver, functools.partial(routing.may_dial, allowed=()), https.context("")), 4443)
        targets = Targets(Lookups(resolver, StsPolicies(resolver, fetch, memory, clock), memory), "me.example", 2599,
                          functools.partial(routing.may_dial, allowed=[ipaddress.ip_network("127.0.0.2/32")]), clock)
        hops = Hops(targets, HopSettings("me.example"), clock)
        dns.set("rebind.test", "A", ["127.0.0.2"], ttl=0)
        for number, address in enumerate(addresses):
            domain = f"d{number}.example"
            kind = "AAAA" if ":" in address else "A"
            dns.set(domain, "MX", [f"10 mx{number}.test."])
            for name in (f"mx{number}.test", f"mta-sts.{domain}"):
                dns.set(name, kind, [address])
            dns.set(f"_mta-sts.{domain}", "TXT", ['"v=STSv1; id=1;"'])
            print(type(await hops.open(Pool(name="p"), domain)).__name__)
        dns.set("rebind.example", "MX", ["10 rebind.test."])
        print(type(await hops.open(Pool(name="p"), "rebind.example")).__name__)
        for url in ("https://127.0.0.1:4443/x", "https://[::1]:4443/x", "https://127.1:4443/x", "https://0x7f.0.0.1:4443/x", "http://d0.example/x"):
            from yarl import URL
            try:
                await https.Https(resolver, lambda address: False, https.context("")).get(URL(url), content_type="a/b", limit=1, seconds=5)
            except Exception as error:
                print(type(error).__name__)

asyncio.run(main(sys.argv[1:]))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_no_syn_leaves_for_a_forbidden_address_by_smtp_or_https_rebinding_included(tmp_path: pathlib.Path) -> None:
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace), sys.executable, "-c", PROGRAM, *FORBIDDEN]
    tests = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=tests, env={"PYTHONPATH": str(tests)}, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip("tracing is not allowed here")
    told = [line for line in done.stdout.splitlines() if line.isalpha()]
    assert told == ["Bounced"] * len(FORBIDDEN) + ["Deferred"] + ["Transient"] * 5, done.stdout + done.stderr
    dialled = re.findall(r"connect\(\d+, (\{sa_family=AF_INET.*?\})", trace.read_text())
    assert [address for address in dialled if "127.0.0.53" not in address and "127.0.0.2" not in address] == []
    assert len([address for address in dialled if "127.0.0.2" in address]) == 1  # the trace sees what is sent, and rebinding changed nothing
