"""Which connections are let in: so many together, so many of one address, so many new ones of it in a minute. Pure; counts, and is told the time.

An IPv6 client has a whole /64 to choose addresses from, so there the /64 counts as one address.
"""

import ipaddress
from collections import Counter, OrderedDict
from dataclasses import dataclass

from postroom_core.reply import Reply

FULL = Reply(421, "4.3.2", "Too many connections, try again soon")
TOO_MANY = Reply(421, "4.7.0", "Too many connections from your address, try again soon")
TOO_FAST = Reply(421, "4.7.0", "Too many new connections from your address, try again in a minute")
# Addresses whose rate is remembered: some 2 MiB. The one that was quiet for longest is forgotten first; its bucket has filled up by then.
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """`total` connections, `per_address` of them, `per_minute` new ones of an address (0 is any number)."""

    total: int
    per_address: int
    per_minute: int = 0


class Admission:
    """`enter` when a connection has come, `admit` when its address is known, `leave` when it has gone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside: Counter[str] = Counter()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when
        self.total = 0

    def enter(self) -> Reply | None:
        """The refusal when the house is full; else the connection counts until `leave`."""
        if self.total >= self._limits.total:
            return FULL
        self.total += 1
        return None

    def admit(self, address: str, now: float) -> Reply | None:
        """The refusal of one more connection from this address; else it counts for it until `leave`. `now` in seconds, monotonic."""
        key = household(address)
        if self._inside[key] >= self._limits.per_address:
            return TOO_MANY
        if self._limits.per_minute and not self._take(key, now):
            return TOO_FAST
        self._inside[key] += 1
        return None

    def leave(self, address: str | None) -> None:
        """`address` as it was admitted, None when it never was."""
        self.total -= 1
        if address is not None:
            key = household(address)
            self._inside[key] -= 1
            if not self._inside[key]:
                del self._inside[key]

    def _take(self, key: str, now: float) -> bool:
        """A token of the bucket, which fills in a minute."""
        most = float(self._limits.per_minute)
        tokens, since = self._buckets.pop(key, (most, now))
        tokens = min(most, tokens + (now - since) * most / 60)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        return tokens >= 1


def household(address: str) -> str:
    """What counts as one address: an IPv4 address, the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
