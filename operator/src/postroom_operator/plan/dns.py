"""The DNS records that a domain needs. Pure. Values are unsplit; splitting into strings of 255 octets is the publisher's business.

The domain's apex is never ours: other services keep their records there, and its SPF is advice. What is listed are RRsets that Postroom has whole:
keys, `_dmarc`, the return path's own name, `_smtp._tls`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from postroom_operator.plan.keys import StoredKey

TTL_SECONDS = 300  # where spec.dns.ttlSeconds is absent
# Of hosts that have not been told how the world calls them; nothing can be published about these.
NAMELESS = ("", "localhost")


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """`required`: without it mail is not signed or not trusted; else a recommendation."""

    name: str
    type: str
    value: str
    required: bool
    purpose: str

    @property
    def key(self) -> tuple[str, str]:
        """One RRset: several types may share a name."""
        return self.name, self.type


@dataclass(frozen=True, slots=True)
class Host:
    """How the world knows this installation: the name that takes bounces, and the addresses that mail leaves from, as far as they were told."""

    name: str = ""
    egress: tuple[str, ...] = ()

    @property
    def nameless(self) -> bool:
        return self.name in NAMELESS


def records(domain: str, spec: Mapping[str, Any], keys: Sequence[StoredKey], host: Host) -> tuple[DnsRecord, ...]:
    """DKIM for every key, DMARC unless it is unmanaged, and what `dns.returnPath` and `dns.tlsReporting` ask for."""
    dns = spec.get("dns", {})
    found = [DnsRecord(f"{key.selector}._domainkey.{domain}", "TXT", key.record, True, f"DKIM {key.algorithm}") for key in keys]
    dmarc = dns.get("dmarc", {})
    policy = dmarc.get("policy", "None")
    if policy != "Unmanaged":
        reports = dmarc.get("reportAddresses", [])
        value = f"v=DMARC1; p={policy.lower()}" + (f"; rua={','.join(reports)}" if reports else "")
        found.append(DnsRecord(f"_dmarc.{domain}", "TXT", value, False, "DMARC"))
    if "returnPath" in dns and not host.nameless:
        found += _return_path(f"{dns['returnPath']['label']}.{domain}", host)
    if reporting := dns.get("tlsReporting"):
        # RFC 8460 section 3
        value = f"v=TLSRPTv1; rua={','.join(reporting['reportAddresses'])}"
        found.append(DnsRecord(f"_smtp._tls.{domain}", "TXT", value, False, "reports about TLS of mail to the domain"))
    return tuple(found)


def _return_path(name: str, host: Host) -> list[DnsRecord]:
    """Bounces come to us, and SPF judges the reverse-path. Addresses that were told are all there are; without them the name's own may not be all."""
    terms = [f"ip{ip_address(text).version}:{text}" for text in host.egress]
    spf = f"v=spf1 {' '.join(terms)} -all" if terms else f"v=spf1 a:{host.name} ~all"
    return [
        DnsRecord(name, "MX", f"10 {host.name}", False, "bounces come back"),
        DnsRecord(name, "TXT", spf, False, "SPF of the reverse-path"),
    ]
