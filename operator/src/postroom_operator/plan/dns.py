"""The DNS records that a domain needs. Pure. Values are unsplit; splitting into strings of 255 octets is the publisher's business.

The domain's apex is never ours: other services keep their records there. SPF is advice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from postroom_operator.plan.keys import StoredKey

TTL_SECONDS = 300  # where spec.dns.ttlSeconds is absent


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """`required`: without it mail is not signed or not trusted; else a recommendation."""

    name: str
    type: str
    value: str
    required: bool
    purpose: str


def records(domain: str, spec: dict[str, Any], keys: Sequence[StoredKey]) -> tuple[DnsRecord, ...]:
    """DKIM for every key, DMARC unless it is unmanaged."""
    found = [DnsRecord(f"{key.selector}._domainkey.{domain}", "TXT", key.record, True, f"DKIM {key.algorithm}") for key in keys]
    dmarc = spec.get("dns", {}).get("dmarc", {})
    policy = dmarc.get("policy", "None")
    if policy != "Unmanaged":
        reports = dmarc.get("reportAddresses", [])
        value = f"v=DMARC1; p={policy.lower()}" + (f"; rua={','.join(reports)}" if reports else "")
        found.append(DnsRecord(f"_dmarc.{domain}", "TXT", value, False, "DMARC"))
    return tuple(found)
