"""What DNS says of the addresses that mail leaves from: PTR and its way back (FCrDNS), the EHLO name, blocklists. Pure."""

import ipaddress
from collections.abc import Mapping, Sequence

from postroom_insight.blocklist import Listing, State
from postroom_insight.finding import Finding, Grade, Publish
from postroom_insight.question import Answer, Status

PTR_RULE = "RFC 1912 section 2.1; Gmail, Yahoo and Microsoft demand it"


def reverse(address: str, own_name: str, ptr: Answer, forward: Mapping[str, Sequence[str]]) -> Finding:
    """The address has a PTR whose name has this address; `forward` are the addresses of each PTR name."""
    full = "." in own_name  # a machine without a full name has no PTR to ask for yet; `own_name` below says so
    publish = Publish(ipaddress.ip_address(address).reverse_pointer, "PTR", f"{own_name}.") if full else None
    if ptr.status is Status.FAILED:
        return Finding("ptr", address, Grade.UNKNOWN, ptr.reason, "an answer", rule=PTR_RULE)
    if not ptr.values:
        return Finding(
            "ptr",
            address,
            Grade.FAIL,
            "no PTR",
            f"PTR {own_name if full else 'to a full name'}, set by the owner of the address (the provider)",
            publish,
            PTR_RULE,
        )
    back = [name for name in ptr.values if _holds(forward.get(name, ()), address)]
    if not back:
        names = ", ".join(f"{name} → {', '.join(forward.get(name, ())) or 'nothing'}" for name in ptr.values)
        return Finding("ptr", address, Grade.FAIL, f"PTR {names}: not this address", "a name that leads back", publish, PTR_RULE)
    if own_name not in [name.lower() for name in back]:
        wanted = f"PTR {own_name}, the name that EHLO says"
        return Finding("ptr", address, Grade.ADVICE, f"PTR {', '.join(back)} leads back", wanted, publish, PTR_RULE)
    return Finding("ptr", address, Grade.PASS, f"PTR {own_name} and back", rule=PTR_RULE)


def own_name(name: str, found: Sequence[str], egress: Sequence[str]) -> Finding:
    """The EHLO name resolves to the addresses that mail leaves from (RFC 5321 section 4.1.4)."""
    rule = "RFC 5321 section 4.1.4"
    missing = [address for address in egress if not _holds(found, address)]
    if "." not in name:
        return Finding("ehlo", name, Grade.FAIL, "no full name", "POSTROOM_HOSTNAME=a full name with an address", rule=rule)
    if missing:
        kind = "AAAA" if ":" in missing[0] else "A"
        seen = f"resolves to {', '.join(found) or 'nothing'}, not to {', '.join(missing)}"
        return Finding("ehlo", name, Grade.FAIL, seen, "every egress address", Publish(name, kind, missing[0]), rule)
    return Finding("ehlo", name, Grade.PASS, f"resolves to {', '.join(found)}", rule=rule)


def _holds(found: Sequence[str], address: str) -> bool:
    return ipaddress.ip_address(address) in [ipaddress.ip_address(value) for value in found]


def listed(listing: Listing) -> Finding:
    """One address in one list."""
    subject, rule = f"{listing.address} in {listing.zone}", "RFC 5782"
    match listing.state:
        case State.LISTED:
            seen = f"listed ({', '.join(listing.codes)}) {listing.text}".strip()
            wanted = f"stop the cause, then ask {listing.zone} to take the address off"
            return Finding("dnsbl", subject, Grade.FAIL, seen, wanted, rule=rule)
        case State.CLEAN:
            return Finding("dnsbl", subject, Grade.PASS, "not listed", rule=rule)
        case State.REFUSED:
            wanted = "a resolver of your own, or an account with the list"
            return Finding("dnsbl", subject, Grade.SKIPPED, f"{listing.text} ({', '.join(listing.codes)})", wanted, rule=rule)
        case State.BROKEN:
            return Finding("dnsbl", subject, Grade.SKIPPED, f"the list is not believed: {listing.text}", rule=rule)
