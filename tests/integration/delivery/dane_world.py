"""A world with DNSSEC in a network namespace of its own: BIND with signed zones, unbound that validates, mail hosts on port 25, no way out.

Run as a program by test_dane.py inside `unshare`; prints one JSON object: for each domain what the hop came to, and what posttls-finger says.
"""

import asyncio
import datetime
import functools
import hashlib
import json
import pathlib
import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from postroom_core.clock import SystemClock
from postroom_core.documents import Pool
from postroom_core.testing.sink import Sink
from postroom_delivery import routing
from postroom_delivery.hop import Hops, HopSettings
from postroom_delivery.outcome import Bounced, Deferred
from postroom_delivery.resolver import Resolver
from postroom_delivery.spool.tls_tally import TlsSession
from postroom_delivery.sts_policies import StsPolicies
from postroom_delivery.targets import Lookups, Targets

from integration.delivery.hops import LOOPBACK, DictMemory

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def issue(name: str, by: Signed | None = None, *, ca: bool = False, age: int = 1) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - age * DAY)
        .not_valid_after(NOW + (30 - age) * DAY)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return Signed(builder.sign(by.key if by else key, hashes.SHA256()), key)


CA = issue("the CA", ca=True)


@dataclass
class Case:
    """A mail host: its chain (None is no TLS), its TLSA record, and where they are. The zone is signed unless `zone` says otherwise."""

    name: str
    chain: tuple[Signed, ...] | None
    tlsa: str
    zone: str = "signed.test"
    tlsa_at: str = ""
    cname: str = ""

    @property
    def host(self) -> str:
        return f"{self.name}.{self.zone}"

    @property
    def domain(self) -> str:
        return f"d-{self.name}.{self.zone}"

    def records(self, address: str) -> str:
        at = self.tlsa_at or self.host
        where = f"{self.host}. CNAME {self.cname}.\n{self.cname}. A {address}\n" if self.cname else f"{self.host}. A {address}\n"
        return f"{self.domain}. MX 10 {self.host}.\n{where}" + (f"_25._tcp.{at}. TLSA {self.tlsa}\n" if self.tlsa else "")


def of(kind: str, certificate: Signed) -> str:
    selector, matching = kind.split()[1:]
    data = certificate.der if selector == "0" else certificate.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{kind} {(hashlib.sha256(data).digest() if matching == '1' else hashlib.sha512(data).digest() if matching == '2' else data).hex()}"


def cases() -> list[Case]:
    own = {name: issue(f"{name}.signed.test") for name in ("ee", "ee512", "wrong", "unusable", "bogus", "alias", "unsigned", "none")}
    below = issue("ta.signed.test", CA)
    other = issue("else.test", CA)
    old = issue("else.test", age=60)
    return [
        Case("ee", (own["ee"],), of("3 1 1", own["ee"])),
        Case("ee512", (own["ee512"],), of("3 0 2", own["ee512"])),
        Case("wrong", (own["wrong"],), of("3 1 1", own["ee"])),
        Case("old", (old,), of("3 1 1", old)),
        Case("ta", (below, CA), of("2 0 1", CA)),
        Case("taname", (other, CA), of("2 1 1", CA)),
        Case("taabsent", (below,), of("2 0 1", CA)),
        Case("unusable", (own["unusable"],), of("1 1 1", own["unusable"])),
        Case("unusableclear", None, of("0 0 1", CA)),
        Case("clear", None, of("3 1 1", own["ee"])),
        Case("bogus", (own["bogus"],), of("3 1 1", own["bogus"])),
        Case("alias", (own["alias"],), of("3 1 1", own["alias"]), tlsa_at="real.signed.test", cname="real.signed.test"),
        Case("none", (own["none"],), ""),
        Case("unsigned", (own["unsigned"],), of("3 1 1", own["ee"]), zone="plain.test"),
    ]


def context_of(case: Case, folder: pathlib.Path) -> ssl.SSLContext | None:
    if case.chain is None:
        return None
    key = case.chain[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / f"{case.name}.pem"
    path.write_bytes(key + b"".join(certificate.pem for certificate in case.chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def zone_files(folder: pathlib.Path, addresses: dict[str, str], known: list[Case]) -> str:
    """Writes and signs the zones; the DS record of the signed one. The signature over the TLSA record of `bogus` is spoilt."""
    for zone in ("signed.test", "plain.test"):
        head = "$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"
        records = "".join(case.records(addresses[case.name]) for case in known if case.zone == zone)
        (folder / zone).write_text(f"$ORIGIN {zone}.\n{head}{records}")
    run = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True, text=True)
    key = run(["dnssec-keygen", "-a", "ECDSAP256SHA256", "-f", "KSK", "signed.test"]).stdout.strip()
    run(["dnssec-keygen", "-a", "ECDSAP256SHA256", "signed.test"])
    run(["dnssec-signzone", "-S", "-O", "full", "-o", "signed.test", "-f", "signed.test.signed", "signed.test"])
    lines = (folder / "signed.test.signed").read_text().splitlines()
    spoilt = [_spoil(line) if line.startswith("_25._tcp.bogus") and "RRSIG\tTLSA" in line else line for line in lines]
    assert spoilt != lines
    (folder / "signed.test.signed").write_text("\n".join(spoilt) + "\n")
    return run(["dnssec-dsfromkey", f"{key}.key"]).stdout.strip()


def _spoil(line: str) -> str:
    head, _, signature = line.rpartition(" ")
    return f"{head} {'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def servers(folder: pathlib.Path, anchor: str) -> list[subprocess.Popen[bytes]]:
    zones = "".join(
        f'zone "{name}" {{ type primary; file "{file}"; }};\n' for name, file in (("signed.test", "signed.test.signed"), ("plain.test", "plain.test"))
    )
    options = (
        f'directory "{folder}"; listen-on port 5300 {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; pid-file none; session-keyfile none;'
    )
    (folder / "named.conf").write_text(f"options {{ {options} dnssec-validation no; }};\ncontrols {{ }};\n{zones}")
    stubs = "".join(f'stub-zone:\n  name: "{zone}"\n  stub-addr: 127.0.0.1@5300\n' for zone in ("signed.test", "plain.test"))
    (folder / "unbound.conf").write_text(
        f'server:\n  directory: "{folder}"\n  interface: 127.0.0.1\n  chroot: ""\n  username: ""\n  pidfile: ""\n'
        f"  use-syslog: no\n  do-daemonize: no\n"
        f'  do-not-query-localhost: no\n  do-ip6: no\n  module-config: "validator iterator"\n  trust-anchor: "{anchor}"\n'
        f'  domain-insecure: "plain.test"\n  local-zone: "test." nodefault\n  root-hints: ""\n{stubs}remote-control:\n  control-enable: no\n'
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    named = shutil.which("named", path="/usr/sbin:/usr/bin:/sbin") or "named"
    unbound = shutil.which("unbound", path="/usr/sbin:/usr/bin:/sbin") or "unbound"
    return [
        subprocess.Popen([named, "-c", str(folder / "named.conf"), "-f"], **quiet),  # type: ignore[call-overload]
        subprocess.Popen([unbound, "-c", str(folder / "unbound.conf"), "-d"], **quiet),  # type: ignore[call-overload]
    ]


async def answered(resolver: Resolver) -> None:
    """Until the validating resolver vouches for the signed zone."""
    async with asyncio.timeout(20):
        while True:
            try:
                if (await resolver.mx("d-ee.signed.test")).secure:
                    return
            except Exception as error:
                print(error, file=sys.stderr)
            await asyncio.sleep(0.1)


async def finger(domain: str) -> str:
    """What Postfix thinks of the host: the words of its verdict."""
    if shutil.which("posttls-finger", path="/usr/sbin:/usr/bin") is None:
        return "absent"
    command = ["/usr/sbin/posttls-finger", "-c", "-l", "dane", "-a", "ipv4", "-T", "5", domain]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    return output.decode("utf-8", "replace")


def report(told: list[TlsSession]) -> dict[str, str]:
    """What the one session would be told as (RFC 8460)."""
    (session,) = told
    return {"policy": session.policy.partition("\n")[0], "result": session.result}


async def main(folder: pathlib.Path) -> None:
    known = cases()
    addresses = {case.name: f"127.0.1.{number}" for number, case in enumerate(known, 1)}
    started = servers(folder, zone_files(folder, addresses, known))
    sinks = [Sink(addresses[case.name], 25, tls=context_of(case, folder), extensions=("PIPELINING",)) for case in known]
    results: dict[str, dict[str, str]] = {}
    try:
        for sink in sinks:
            await sink.__aenter__()
        await answered(Resolver(("127.0.0.1:53",)))
        clock, memory, resolver = SystemClock(), DictMemory(), Resolver(("127.0.0.1:53",))

        async def no_policy(domain: str) -> str:
            raise AssertionError(domain)

        may_dial = functools.partial(routing.may_dial, allowed=LOOPBACK)
        targets = Targets(Lookups(resolver, StsPolicies(resolver, no_policy, memory, clock), memory), "me.example", 25, may_dial, clock)
        hops = Hops(targets, HopSettings("me.example"), clock)
        for case in known:
            told: list[TlsSession] = []
            opened = await hops.open(Pool(name="p"), case.domain, note=told.append)
            ours = opened.cause.text if isinstance(opened, (Deferred, Bounced)) else opened.security or "in clear"
            if not isinstance(opened, (Deferred, Bounced)):
                await opened.quit()
            results[case.name] = {"kind": type(opened).__name__, "ours": ours, "postfix": await finger(case.domain), **report(told)}
    finally:
        for sink in sinks:
            await sink.__aexit__()
        for process in started:
            process.terminate()
            process.wait(10)
    print(json.dumps(results))


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with_resolver = pathlib.Path(sys.argv[1]) / "resolv.conf"
    with_resolver.write_text("nameserver 127.0.0.1\noptions trust-ad\n")
    subprocess.run(["mount", "--bind", str(with_resolver), "/etc/resolv.conf"], check=True)
    asyncio.run(main(pathlib.Path(sys.argv[1])))
