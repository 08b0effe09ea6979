"""Which connections are let in: so many together, so many of one address, so many new ones of it in a minute. Pure; is told the time.

An IPv6 client has a whole /64 to choose addresses from, so there the /64 counts as one address.
"""

import ipaddress
from dataclasses import dataclass

from postroom_core.reply import Reply
from postroom_ingress.headcount import Headcount

FULL = Reply(421, "4.3.2", "Too many connections, try again soon")
TOO_MANY = Reply(421, "4.7.0", "Too many connections from your address, try again soon")
TOO_FAST = Reply(421, "4.7.0", "Too many new connections from your address, try again in a minute")


@dataclass(frozen=True, slots=True)
class Limits:
    """`total` connections, `per_address` of them, `per_minute` new ones of an address (0 is any number)."""

    total: int
    per_address: int
    per_minute: int = 0


class Admission:
    """`enter` when a connection has come, `admit` when its address is known, `leave` when it has gone. Limits hold for all that share `headcount`."""

    def __init__(self, limits: Limits, headcount: Headcount) -> None:
        self._limits = limits
        self._headcount = headcount

    @property
    def total(self) -> int:
        """Connections of this process."""
        return self._headcount.own

    def enter(self) -> Reply | None:
        """The refusal when the house is full; else the connection counts until `leave`."""
        if self._headcount.total >= self._limits.total:
            return FULL
        self._headcount.enter()
        return None

    def admit(self, address: str, now: float) -> Reply | None:
        """The refusal of one more connection from this address; else it counts for it until `leave`. `now` in seconds, monotonic."""
        key = _key(address)
        if self._headcount.held(key) >= self._limits.per_address:
            return TOO_MANY
        if self._limits.per_minute:
            if self._headcount.arrivals(key, now) + 1 > self._limits.per_minute:
                return TOO_FAST
            self._headcount.arrived(key, now)
        self._headcount.hold(key)
        return None

    def leave(self, address: str | None) -> None:
        """`address` as it was admitted, None when it never was."""
        self._headcount.leave()
        if address is not None:
            self._headcount.release(_key(address))


def _key(address: str) -> str:
    return f"address:{household(address)}"


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
