"""Where mail for a domain goes: MX hosts in order, or a smart host; and which addresses may be dialled at all. Pure.

RFC 5321 section 5.1: lowest preference first, equal ones in random order, no MX means the domain's own address, a host that is ourselves cuts
the list. P8: MX records come from strangers, so an address of a private, loopback, link-local or otherwise special network is refused unless
configured; the check is on the address that is dialled.
"""

import ipaddress
import random
from collections.abc import Iterable, Sequence

from postroom_core.documents import DestinationLimit, Pool, Route, TlsPolicy

# An attempt tries this many hosts at most: a domain with hundreds of MX records must not bind a connection slot for hours.
MOST_HOSTS = 10
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What ipaddress does not count as non-global, and what carries an IPv4 address inside.
_CARRIERS = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96"))
# Special networks that ipaddress of Python 3.11 calls global: protocol assignments (metadata of Oracle's cloud at 192.0.0.192), 6to4 relays,
# documentation, segment routing, site-local, and the address of Azure's platform agent.
_SPECIAL = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "5f00::/16", "fec0::/10", "168.63.129.16/32"))
_SMART_HOST = "smart-host:"
_SITE = "mx:"
# Providers whose customers' MX records name a host for each customer (example-com.mail.protection.outlook.com); a list, because guessing by
# cutting labels would take a registry like co.uk for a provider.
_OWN_HOST_FOR_EACH = (
    "mail.protection.outlook.com",
    "mx.microsoft",
    "pphosted.com",
    "ppe-hosted.com",
    "mimecast.com",
    "barracudanetworks.com",
    "messagelabs.com",
    "iphmx.com",
    "trendmicro.eu",
    "trendmicro.com",
    "hydra.sophos.com",
    "mailcontrol.com",
)


def matches(domain: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern of a limit or a route means the domain: equal, or "*"."""
    return any(pattern in ("*", domain) for pattern in patterns)


def route_of(pool: Pool, domain: str) -> Route | None:
    """The smart-host route of a domain; None is MX."""
    return next((route for route in pool.routes if matches(domain, route.match)), None)


def destination_of(pool: Pool, domain: str, site: str | None) -> str:
    """The destination's name: the smart-host route; the domain, if a limit names it or its site is not known yet; else the site.

    What has one destination shares limits, connections and back-off.
    """
    route = route_of(pool, domain)
    if route is not None:
        return _SMART_HOST + route.name
    if site is None or any(domain in limit.match for limit in pool.destination_limits):
        return domain
    return site


def site_of(domain: str, records: Sequence[tuple[int, str]]) -> str:
    """The site of a domain with these MX records, `mx:HOST`: the most preferred host, the first by name among equals.

    Domains with the same MX set have the same site. Hosts of providers that give every customer a name of its own count as one.
    """
    if not records:
        return domain
    _, best = min(records)
    provider = next((suffix for suffix in _OWN_HOST_FOR_EACH if best.endswith("." + suffix)), None)
    return _SITE + (f"*.{provider}" if provider is not None else best)


def is_site(destination: str) -> bool:
    """Whether a destination's name means a site, which several domains may share."""
    return destination.startswith(_SITE)


def route_named(pool: Pool, destination: str) -> Route | None:
    """The smart-host route that a destination's name means; None for a domain."""
    return next((route for route in pool.routes if destination == _SMART_HOST + route.name), None)


def tls_policy_of(pool: Pool, domain: str) -> TlsPolicy:
    """What the pool asks of the hosts of a domain; the first rule that fits."""
    return next((rule.policy for rule in pool.tls_rules if matches(domain, rule.match)), "Opportunistic")


def limit_of(pool: Pool | None, destination: str) -> DestinationLimit:
    """The first limit that fits; a pool without a fitting one has the defaults."""
    limits = pool.destination_limits if pool is not None else ()
    return next((limit for limit in limits if matches(destination, limit.match)), DestinationLimit(name="default", match=("*",)))


def order_mx(records: Sequence[tuple[int, str]], own_name: str, shuffle: random.Random) -> list[str]:
    """Host names to try in order. Empty when only we ourselves, or hosts behind us, are named (the caller bounces with 5.4.6)."""
    own = [preference for preference, host in records if host == own_name]
    usable = [(preference, host) for preference, host in records if not own or preference < min(own)]
    shuffle.shuffle(usable)
    return [host for _, host in sorted(usable, key=lambda record: record[0])][:MOST_HOSTS]


def may_dial(address: str, allowed: Sequence[Network], refused: Sequence[Network] = ()) -> bool:
    """Whether a peer's address may be connected to. `refused` wins over `allowed`: networks of our own that have public addresses."""
    parsed: _Address = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if _among(parsed, refused):
        return False
    if _among(parsed, allowed):
        return True
    if _among(parsed, _CARRIERS + _SPECIAL):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def _among(address: _Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
