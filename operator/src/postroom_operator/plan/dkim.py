"""The life of DKIM keys as a state machine. Pure: (keys, what DNS showed, what the signers hold, policy, now) → the keys' next states and what to do.

    Publishing ──every server shows it, long enough──▶ Published ──every signer holds it──▶ Active
    Active ──a successor is active──▶ Retiring ──overlap──▶ Revoked ──gone from the DNS──▶ (deleted)

The invariants, held by tests over a virtual year: a key signs only after its record was seen everywhere; a domain that has signed never loses its
last active key; a record stays as long as mail signed by it may be on its way; nothing is ever switched because time ran out. Each call moves a
key by one state at most, and the caller stores the states before it acts, so a crash between any two steps repeats a step and never skips one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

# Three looks, so that a server that answers in turns old and new is noticed.
PASSES = 3
# A record that nobody removes (upsert-only, by hand) must not keep the private key here for ever.
FORGET_AFTER = timedelta(days=7)
IDLE_CHECK = timedelta(hours=1)


class State(StrEnum):
    """Stored beside the key."""

    PUBLISHING = "Publishing"
    PUBLISHED = "Published"
    ACTIVE = "Active"
    RETIRING = "Retiring"
    REVOKED = "Revoked"


CANDIDATES = (State.PUBLISHING, State.PUBLISHED)
IN_DNS = (State.PUBLISHING, State.PUBLISHED, State.ACTIVE, State.RETIRING)


@dataclass(frozen=True, slots=True)
class Key:
    """One selector. `trigger` is the rotation trigger it was made for; imported keys were published elsewhere."""

    selector: str
    algorithm: str
    state: State
    created: datetime
    trigger: str = ""
    imported: bool = False
    published: datetime | None = None  # when its record was first wanted
    passes: int = 0
    last_pass: datetime | None = None
    activated: datetime | None = None
    retire_after: datetime | None = None
    revoked: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a key's record: how many of the zone's servers show it as it should be, and whether none shows anything."""

    at: datetime
    agree: int
    total: int
    gone: bool = False
    negative_ttl: int = 0  # seconds that resolvers may remember its absence

    @property
    def everywhere(self) -> bool:
        return self.total > 0 and self.agree == self.total


@dataclass(frozen=True, slots=True)
class Policy:
    """What a MailDomain asks for. `overlap` is the effective one: longer than any message may wait."""

    algorithms: tuple[str, ...]
    interval: timedelta
    overlap: timedelta
    publish_timeout: timedelta
    trigger: str = ""
    imported: frozenset[str] = frozenset()
    may_rotate: bool = True
    check_every: timedelta = timedelta(seconds=30)
    settle: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What comes next. `keys` are all keys with their new states; those in `delete` are not among them."""

    keys: tuple[Key, ...]
    create: tuple[str, ...] = ()  # algorithms
    delete: tuple[str, ...] = ()  # selectors
    reason: str = "Idle"
    message: str = ""
    wake_in: timedelta = IDLE_CHECK

    @property
    def signing(self) -> tuple[str, ...]:
        """Selectors that sign. Ed25519 alone is not verified everywhere: nothing signs without RSA."""
        active = [key for key in self.keys if key.state == State.ACTIVE]
        return tuple(key.selector for key in active) if any(key.algorithm == "RSA2048" for key in active) else ()

    @property
    def standby(self) -> tuple[str, ...]:
        """Selectors that signers shall hold without using them yet."""
        return tuple(key.selector for key in self.keys if key.state == State.PUBLISHED)

    @property
    def next_rotation(self) -> datetime | None:
        """Set by `advance` on the oldest active key; None while there is none."""
        return min((key.activated for key in self.keys if key.state == State.ACTIVE and key.activated), default=None)


def advance(keys: Sequence[Key], seen: Mapping[str, Seen], loaded: frozenset[str], policy: Policy, now: datetime) -> Rotation:
    """One step. `loaded` are the selectors that every ready signer holds."""
    moved = [_published(key, seen.get(key.selector), policy, now) for key in keys]
    moved = _activated(keys, moved, loaded, policy, now)
    moved = [_retired(key, moved, policy, now) for key in moved]
    moved = [replace(key, state=State.REVOKED, revoked=now) if _is_over(key, now) else key for key in moved]
    delete = tuple(key.selector for key in moved if _is_forgotten(key, keys, seen.get(key.selector), now))
    left = tuple(key for key in moved if key.selector not in delete)
    create = _wanted(left, policy, now)
    reason, message = _reason(left, create, policy, now)
    changed = bool(create or delete) or set(left) != set(keys)
    return Rotation(left, create, delete, reason, message, timedelta() if changed else _wake_in(left, policy, now))


def _published(key: Key, seen: Seen | None, policy: Policy, now: datetime) -> Key:
    """The gate to Published: every server, three looks apart, and longer than resolvers remember that there was nothing."""
    if key.state not in CANDIDATES:
        return key
    if key.published is None:
        return replace(key, published=now)
    if seen is None or (key.last_pass is not None and seen.at < key.last_pass + policy.check_every):
        return key
    if seen.at < key.published:  # a look from before the record was wanted proves nothing
        return key
    if not seen.everywhere:
        return replace(key, state=State.PUBLISHING, passes=0, last_pass=None)
    # Enough is enough: a key that waits for the settling time or the signers is not written at every look.
    looked = replace(key, passes=key.passes + 1, last_pass=seen.at) if key.passes < PASSES else key
    settled = now - key.published >= max(policy.settle, timedelta(seconds=seen.negative_ttl))
    return replace(looked, state=State.PUBLISHED) if looked.passes >= PASSES and settled else looked


def _activated(before: Sequence[Key], moved: list[Key], loaded: frozenset[str], policy: Policy, now: datetime) -> list[Key]:
    """Published and loaded keys sign; a key's first look as Published and its activation are two steps, the signers must get it in between."""
    was = {key.selector: key.state for key in before}
    found = list(moved)
    for index, key in sorted(enumerate(moved), key=lambda item: item[1].algorithm != "RSA2048"):
        held = key.state == State.PUBLISHED and was[key.selector] == State.PUBLISHED and key.selector in loaded
        rsa = key.algorithm == "RSA2048" or any(other.state == State.ACTIVE and other.algorithm == "RSA2048" for other in found)
        if held and rsa:
            found[index] = replace(key, state=State.ACTIVE, activated=now)
    return found


def _retired(key: Key, keys: Sequence[Key], policy: Policy, now: datetime) -> Key:
    """An active key ends when a younger one of its algorithm signs, or when its algorithm is no longer wanted."""
    if key.state != State.ACTIVE or key.selector in policy.imported:
        return key
    others = [other for other in keys if other.state == State.ACTIVE and other.selector != key.selector and other.algorithm == key.algorithm]
    replaced = any(other.selector in policy.imported or _order(other) > _order(key) for other in others)
    unwanted = key.algorithm not in policy.algorithms and key.algorithm != "RSA2048"
    if not replaced and not unwanted:
        return key
    return replace(key, state=State.RETIRING, retire_after=now + policy.overlap)


def _order(key: Key) -> tuple[datetime, str]:
    return key.created, key.selector


def _is_over(key: Key, now: datetime) -> bool:
    return key.state == State.RETIRING and key.retire_after is not None and now > key.retire_after


def _is_forgotten(key: Key, before: Sequence[Key], seen: Seen | None, now: datetime) -> bool:
    """Revoked for a step at least, and its record gone from every server."""
    if key.state != State.REVOKED or key.revoked is None or key not in before:
        return False
    return (seen is not None and seen.gone and seen.at > key.revoked) or now - key.revoked > FORGET_AFTER


def _is_due(key: Key, policy: Policy, now: datetime) -> bool:
    aged = key.activated is not None and now - key.activated >= policy.interval
    return key.imported or aged or (policy.trigger not in ("", key.trigger))


def _wanted(keys: Sequence[Key], policy: Policy, now: datetime) -> tuple[str, ...]:
    """Algorithms that need a new key: each that has none, else one at a time."""
    if policy.imported:
        return ()
    candidates = {key.algorithm for key in keys if key.state in CANDIDATES}
    active = {key.algorithm: key for key in sorted(keys, key=_order) if key.state == State.ACTIVE}
    first = tuple(algorithm for algorithm in policy.algorithms if algorithm not in candidates and algorithm not in active)
    if first or candidates or not policy.may_rotate:
        return first
    due = [algorithm for algorithm in policy.algorithms if _is_due(active[algorithm], policy, now)]
    return tuple(due[:1])


def _reason(keys: Sequence[Key], create: tuple[str, ...], policy: Policy, now: datetime) -> tuple[str, str]:
    """Of the condition DKIMRotating, by what is waited for."""
    waiting = [key for key in keys if key.state == State.PUBLISHING]
    late = [key.selector for key in waiting if key.published is not None and now - key.published > policy.publish_timeout]
    if late:
        return "PublishTimeout", f"the record of {', '.join(late)} is still not shown by every name server; the old key goes on signing"
    if waiting or create:
        return "WaitingForDNS", f"waiting until every name server shows {', '.join(key.selector for key in waiting) or 'the new key'}"
    if held := [key.selector for key in keys if key.state == State.PUBLISHED]:
        return "WaitingForSigners", f"waiting until every signer holds {', '.join(held)}"
    if old := [key.selector for key in keys if key.state in (State.RETIRING, State.REVOKED)]:
        return "Overlap", f"the record of {', '.join(old)} stays for mail that was signed before"
    return "Idle", ""


def _wake_in(keys: Sequence[Key], policy: Policy, now: datetime) -> timedelta:
    """Until the next moment at which something may change by itself."""
    if any(key.state in CANDIDATES or key.state == State.REVOKED for key in keys):
        return policy.check_every
    moments = [key.retire_after + timedelta(seconds=1) for key in keys if key.state == State.RETIRING and key.retire_after]
    moments += [key.activated + policy.interval for key in keys if key.state == State.ACTIVE and key.activated]
    # A moment that has passed waits for something else, the platform's budget for example: it must not make us run in circles.
    return min([IDLE_CHECK, *(moment - now for moment in moments if moment > now)])
