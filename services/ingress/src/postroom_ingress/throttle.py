"""Slows the guessing of passwords down over all sessions of the process: per user name and per address, decaying, bounded. Pure: `now` in seconds.

A wrong password fills two buckets, that of the user name (known or not: both answer alike) and that of the address, which leak with time; a full one
refuses before anything is checked. Two things keep guessing from locking out those who know the password: an address from which a user got in
lately is not bound by the user's bucket, and the same wrong password again is no further guess (the old pod of a deployment that goes on with the
password of yesterday). With several replicas each counts for itself: an attacker gets so many times as much, which the figures allow for.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")

# Some 100 octets each: 5 MB at the worst. The longest untouched are forgotten first; to make others be forgotten takes as many attempts.
MOST = 50_000
TRUST_SECONDS = 86_400.0
REPEAT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    """`burst` failures at once, then one every `seconds`."""

    burst: int
    seconds: float


# A person mistypes a few times, a deployment has a few pods. 1440 guesses a day find no password that deserves the name.
USER = Rule(10, 60.0)
# Many applications share an address behind a NAT; stuffing of stolen passwords from one address is still no use at this pace.
ADDRESS = Rule(30, 10.0)


@dataclass(frozen=True, slots=True)
class Attempt:
    """`username` "" when the client names none (tokens, certificates); `digest` identifies what was tried, b"" when it cannot be told."""

    username: str
    address: str
    digest: bytes = b""

    @property
    def network(self) -> str:
        """The address; of IPv6 the /64, which one customer has whole."""
        try:
            parsed = ipaddress.ip_address(self.address)
        except ValueError:
            return self.address
        if isinstance(parsed, ipaddress.IPv6Address):
            if parsed.ipv4_mapped is not None:
                return str(parsed.ipv4_mapped)
            return str(ipaddress.ip_network((parsed, 64), strict=False))
        return str(parsed)


class _Recent(Generic[K]):
    """Keys with a number, the longest untouched dropped beyond MOST."""

    def __init__(self) -> None:
        self._found: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: K) -> float:
        return self._found.get(key, 0.0)

    def put(self, key: K, value: float) -> None:
        self._found[key] = value
        self._found.move_to_end(key)
        if len(self._found) > MOST:
            self._found.popitem(last=False)


class Throttle:
    """One for the process."""

    def __init__(self) -> None:
        # The time at which a bucket will be empty: level and time of the last change in one number.
        self._users: _Recent[str] = _Recent()
        self._networks: _Recent[str] = _Recent()
        self._trusted: _Recent[tuple[str, str]] = _Recent()
        self._tried: _Recent[bytes] = _Recent()

    def __len__(self) -> int:
        return max(len(kept) for kept in (self._users, self._networks, self._trusted, self._tried))

    def wait(self, attempt: Attempt, now: float) -> float:
        """Seconds until an attempt is let through, 0 when it is now."""
        wait = _wait(ADDRESS, self._networks.get(attempt.network), now)
        if attempt.username and self._trusted.get((attempt.username, attempt.network)) <= now:
            wait = max(wait, _wait(USER, self._users.get(attempt.username), now))
        return wait

    def failed(self, attempt: Attempt, now: float) -> None:
        if attempt.digest:
            if self._tried.get(attempt.digest) > now:
                return
            self._tried.put(attempt.digest, now + REPEAT_SECONDS)
        _fill(ADDRESS, self._networks, attempt.network, now)
        if attempt.username:
            _fill(USER, self._users, attempt.username, now)

    def succeeded(self, attempt: Attempt, now: float) -> None:
        if attempt.username:
            self._trusted.put((attempt.username, attempt.network), now + TRUST_SECONDS)


def _wait(rule: Rule, empty_at: float, now: float) -> float:
    return max(0.0, empty_at - now - (rule.burst - 1) * rule.seconds)


def _fill(rule: Rule, buckets: _Recent[str], key: str, now: float) -> None:
    buckets.put(key, max(buckets.get(key), now) + rule.seconds)
