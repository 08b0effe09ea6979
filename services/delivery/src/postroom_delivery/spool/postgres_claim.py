"""PostgreSQL: claiming due work for many processes at once. P3: lease, rate tokens and connection slot are taken in one transaction, or none.

How exactness comes about: a claim locks the rows of the destinations that it looks at and skips those that another claim has locked; slots and
tokens are counted after the lock. How fairness comes about: see sqlite_claim; it is the same order of destinations and lanes.

Locks are taken in one order, or never waited for: suspended tenants (shared), arrivals (skipped when locked), destinations that have new
arrivals (sorted), destinations that are due (skipped when locked), and only under a destination's lock its lanes and recipients. Accepts and
settlements lock no destination: they append arrivals.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from postroom_delivery import limits
from postroom_delivery.spool.interface import LimitsOf
from postroom_delivery.spool.model import Batch, Claim, ClaimedMessage, EventDetail, Key, Limits
from postroom_delivery.spool.postgres_link import Transaction
from postroom_delivery.spool.rows import claimed_message
from postroom_delivery.spool.sqlite_accept import NEVER
from postroom_delivery.spool.sqlite_claim import BATCH_BYTES, BATCH_MESSAGES, BATCH_RECIPIENTS, IN_DOUBT, INLINE_BODY, POOL_FULL_MS

# What other processes have locked is due but not ours: look again after this long instead of at once.
BUSY_MS = 50


@dataclass
class _Visit:
    """A destination that this claim has locked. `allowed` messages may go; `wait_until` is when a refused one may be looked at again."""

    key: Key
    bucket: limits.Bucket
    factor: float
    idle: bool
    limit: Limits
    allowed: int = 0
    taken: int = 0
    wait_until: int | None = None
    untouched: bool = False

    @property
    def rate(self) -> limits.Rate | None:
        return limits.per_second(self.limit.rate, self.factor)


class Claiming:
    """One claim transaction for `holder`; its lease lasts until `lease_until`."""

    def __init__(self, transaction: Transaction, holder: str, lease_until: int, limits_of: LimitsOf) -> None:
        self._transaction = transaction
        self._now = transaction.now
        self._holder = holder
        self._lease_until = lease_until
        self._limits_of = limits_of
        self._buckets: dict[tuple[str, int], limits.Bucket] = {}
        self._ledger = limits.Ledger(self._now, lambda key, seconds: self._buckets[key, seconds])

    async def claim(self, room: int, idle: Collection[Key]) -> tuple[list[Batch], int | None]:
        """See Spool.claim."""
        await take_arrivals(self._transaction)
        visits = await self._visits(room, idle)
        batches: list[Batch] = []
        if visits:
            await self._transaction.fetch("hold_lease", self._holder, self._lease_until)
            await self._decide(visits)
            batches = await self._take([visit for visit in visits if visit.allowed], room)
            await self._leave(visits)
            changed = [(*key, bucket.tokens, bucket.at) for key, bucket in sorted(self._ledger.changed.items())]
            await self._transaction.many("write_buckets", changed)
        rows = await self._transaction.fetch("next_at")
        next_at = rows[0]["next_at"] if rows else None
        return batches, next_at if next_at is None or batches else max(next_at, self._now + BUSY_MS)

    async def _visits(self, room: int, idle: Collection[Key]) -> list[_Visit]:
        """Connections that wait come first: they cost no handshake. Destinations that wait for a slot or a token do not use up the room."""
        rows = await self._transaction.many("idle_destinations", [(key.pool, key.destination) for key in idle], self._now)
        rows += await self._transaction.fetch("due_destinations", self._now, room * 2)
        found: dict[Key, _Visit] = {}
        for row in rows:
            key = Key(row["pool"], row["name"])
            bucket, pace = limits.Bucket(row["tokens"], row["tokens_at"]), limits.Pace(row["factor"], row["factor_at"])
            found.setdefault(key, _Visit(key, bucket, pace.now(self._now), key in idle, self._limits_of(key)))
        return list(found.values())

    async def _decide(self, visits: list[_Visit]) -> None:
        """How many messages each may take now, as far as that is its own affair and the pool's connections'."""
        await self._lock([budget for visit in visits for budget in visit.limit.budgets])
        rows = await self._transaction.many("slots", [_place(visit) for visit in visits])
        slots = {Key(row["pool"], row["destination"]): (row["used"], row["free_at"]) for row in rows}
        pools = {row["pool"]: row["used"] for row in await self._transaction.fetch("slots_of_pools", sorted({v.key.pool for v in visits}))}
        for visit in visits:
            used, free_at = slots.get(visit.key, (0, None))
            if not visit.idle and used >= limits.connections(visit.limit.max_connections, visit.factor):
                visit.wait_until = max(free_at or 0, self._now + 1)
                continue
            most = min((b.max_connections for b in visit.limit.budgets if b.max_connections is not None), default=None)
            if not visit.idle and most is not None:
                if pools.get(visit.key.pool, 0) >= most:
                    visit.wait_until = self._now + POOL_FULL_MS
                    continue
                pools[visit.key.pool] = pools.get(visit.key.pool, 0) + 1
            visit.bucket = limits.refill(visit.bucket, visit.rate, self._now)
            visit.allowed = max(0, min(visit.limit.batch, BATCH_MESSAGES, limits.available(visit.bucket)))
            if not visit.allowed:
                visit.wait_until = self._now + limits.wait_ms(visit.bucket, visit.rate)

    async def _lock(self, budgets: list[limits.Budget]) -> None:
        """Shared buckets, for this claim alone until its commit. Sorted, so that claims cannot block each other; window 0 guards connections."""
        keys = {(budget.key, rate.seconds) for budget in budgets for rate in budget.rates}
        keys |= {(budget.key, 0) for budget in budgets if budget.max_connections is not None}
        wanted = sorted(keys - self._buckets.keys())
        await self._transaction.many("make_buckets", wanted)
        for row in await self._transaction.many("lock_buckets", wanted):
            self._buckets[row["key"], row["window_seconds"]] = limits.Bucket(row["tokens"], row["at"])

    async def _take(self, visits: list[_Visit], room: int) -> list[Batch]:
        """Leases due work of the first `room` visits that have any; what is beyond stays as it is."""
        rows = await self._transaction.many("due_work", [_place(visit) for visit in visits], self._now, BATCH_RECIPIENTS)
        due: dict[Key, list[Any]] = {}
        for row in rows:
            due.setdefault(Key(row["pool"], row["name"]), []).append(row)
        tenants = {visit.key: visit.limit.of_tenant(visit.key.pool, due[visit.key][0]["tenant"]) for visit in visits if visit.key in due}
        await self._lock([budget for budgets in tenants.values() for budget in budgets])
        chosen: dict[Key, list[Any]] = {}
        turns, waits = [], []
        for visit in visits:
            if len(chosen) == room:
                visit.untouched = True
            elif found := due.get(visit.key):
                lane = (*_place(visit), found[0]["tenant"])
                if picked := self._pick(visit, tenants[visit.key], [row for row in found if row["id"] is not None]):
                    chosen[visit.key] = picked
                wait = self._ledger.wait_ms(tenants[visit.key])
                waits += [(*lane, self._now + wait)] if wait and not picked else []
                turns += [lane] if picked or not wait else []
        leased = await self._lease([row for picked in chosen.values() for row in picked])
        await self._transaction.many("lane_turns", turns, self._now)
        await self._transaction.many("lanes_wait", waits)
        batches = []
        slots = await self._slots([visit for visit in visits if visit.key in chosen and not visit.idle])
        for visit in visits:
            messages = _grouped(chosen.get(visit.key, []), leased)
            if messages:
                visit.bucket = limits.spend(visit.bucket, visit.taken)
                batches.append(Batch(visit.key, slots.get(visit.key, 0), messages))
        return batches

    def _pick(self, visit: _Visit, tenant: tuple[limits.Budget, ...], rows: list[Any]) -> list[Any]:
        """The rows that every limit lets go now; their tokens are spent."""
        budgets = (*visit.limit.budgets, *tenant)
        allowed = min(visit.allowed, self._ledger.available(budgets))
        picked = _picked(rows, allowed, visit.limit)
        counted = Counter((row["message"], row["domain"]) for row in picked)
        visit.taken = sum(visit.limit.count(domain, recipients) for (_, domain), recipients in counted.items())
        self._ledger.spend(budgets, visit.taken)
        return picked

    async def _lease(self, rows: list[Any]) -> dict[int, tuple[ClaimedMessage, Claim]]:
        """Each leased recipient with its message, whose claims are still empty. One that a person has just held or ended is not among them."""
        if not rows:
            return {}
        leases = await self._transaction.fetch("lease", self._holder, sorted(row["id"] for row in rows))
        fences = {row["id"]: row["fence"] for row in leases}
        rows = [row for row in rows if row["id"] in fences]
        names = sorted({row["message"] for row in rows})
        small = sorted({row["message"] for row in rows if row["body_size"] <= INLINE_BODY})
        chunks: dict[str, list[bytes]] = {name: [] for name in small}
        for row in await self._transaction.fetch("inline_bodies", small) if small else ():
            chunks[row["message"]].append(row["data"])
        bodies = {name: b"".join(parts) for name, parts in chunks.items()}
        messages = {row["id"]: claimed_message(row, bodies.get(row["id"]), ()) for row in await self._transaction.fetch("claimed_messages", names)}
        return {row["id"]: (messages[row["message"]], _claim(row, fences[row["id"]])) for row in rows}

    async def _slots(self, visits: list[_Visit]) -> dict[Key, int]:
        rows = await self._transaction.many("insert_slots", [_place(visit) for visit in visits], self._holder)
        return {Key(row["pool"], row["destination"]): row["id"] for row in rows}

    async def _leave(self, visits: list[_Visit]) -> None:
        """When each destination may be looked at again."""
        visits = [visit for visit in visits if not visit.untouched]
        places = [_place(visit) for visit in visits]
        await self._transaction.many("delete_empty_lanes", places)
        due = {Key(row["pool"], row["destination"]): row["due"] for row in await self._transaction.many("lanes_next_due", places)}
        rows: list[tuple[Any, ...]] = []
        for visit in visits:
            next_at = visit.wait_until
            if next_at is None and (next_due := due.get(visit.key, NEVER)) != NEVER:
                own = limits.wait_ms(visit.bucket, visit.rate) if limits.available(visit.bucket) < 1 else 0
                wait = max(own, self._ledger.wait_ms(visit.limit.budgets))
                next_at = max(next_due, self._now + wait)
            rows.append((*_place(visit), next_at, visit.bucket.tokens, visit.bucket.at))
        await self._transaction.many("update_destinations", rows)


def _place(visit: _Visit) -> tuple[str, str]:
    return visit.key.pool, visit.key.destination


def _picked(rows: list[Any], allowed: int, limit: Limits) -> list[Any]:
    """The rows of the first `allowed` messages, within the volume of a batch."""
    messages: dict[str, int] = {}
    picked = []
    for row in rows:
        known = row["message"] in messages
        costs = row["domain"] in limit.singly or not known
        if costs and (allowed < 1 or (not known and sum(messages.values()) >= BATCH_BYTES)):
            continue
        allowed -= costs
        messages[row["message"]] = row["size"] if row["body_size"] <= INLINE_BODY else 0
        picked.append(row)
    return picked


def _grouped(rows: list[Any], leased: dict[int, tuple[ClaimedMessage, Claim]]) -> tuple[ClaimedMessage, ...]:
    by_message: dict[str, tuple[ClaimedMessage, list[Claim]]] = {}
    for row in rows:
        if row["id"] in leased:
            message, claim = leased[row["id"]]
            by_message.setdefault(message.id, (message, []))[1].append(claim)
    return tuple(replace(message, claims=tuple(claims)) for message, claims in by_message.values())


def _claim(row: Any, fence: int) -> Claim:
    return Claim(row["id"], fence, row["address"], row["attempts"], row["notify"], row["orcpt"], row["delay_told"])


async def take_arrivals(transaction: Transaction) -> None:
    """Brings what was scheduled since the last claim to its lanes and destinations. Destinations first: their lock is the lanes' lock."""
    suspended = {row["tenant"] for row in await transaction.fetch("suspended_for_claim")}
    rows = await transaction.fetch("take_arrivals")
    lanes: dict[tuple[str, str, str], int] = {}
    destinations: dict[tuple[str, str], int] = {}
    for row in rows:
        place = (row["pool"], row["destination"])
        due = NEVER if row["tenant"] in suspended else row["due"]
        destinations[place] = min(due, destinations.get(place, NEVER))
        if row["tenant"]:
            lane = (*place, row["tenant"])
            lanes[lane] = min(row["due"], lanes.get(lane, NEVER))
    unblocked = sorted({(row["pool"], row["destination"]) for row in rows if row["unblock"]})
    await transaction.many("lock_destinations", sorted(destinations))
    await transaction.many("unblock_destinations", unblocked)
    await transaction.many("wake_destinations", [(*place, None if due == NEVER else due) for place, due in sorted(destinations.items())])
    await transaction.many("wake_lanes", [(*lane, due) for lane, due in sorted(lanes.items())])


async def recover(transaction: Transaction) -> int:
    """Makes due again what processes hold whose lease has ended; a claim in doubt is told as an `ambiguous` event."""
    ended = [row["name"] for row in await transaction.fetch("ended_holders", transaction.now)]
    if not ended:
        return 0
    rows = await transaction.fetch("take_back", transaction.now, ended)
    _due_again(transaction, rows, transaction.now)
    for row in await transaction.fetch("take_slots", ended):
        transaction.wake(row["pool"], row["destination"], "", transaction.now)
    await transaction.fetch("delete_holders", ended)
    return len(rows)


async def give_back(transaction: Transaction, holder: str, claims: Sequence[Claim], due_at: int) -> int:
    """See Spool.give_back; `due_at` by the database's clock."""
    rows = await transaction.many("give_back", sorted((claim.recipient, claim.fence) for claim in claims), due_at, holder)
    _due_again(transaction, rows, due_at)
    return len(rows)


def _due_again(transaction: Transaction, rows: list[Any], due_at: int) -> None:
    for row in rows:
        transaction.wake(row["pool"], row["destination"], row["tenant"], due_at)
        if row["in_doubt"]:
            event = EventDetail("ambiguous", text=IN_DOUBT, classification="network")
            transaction.event(row["message"], row["address"], row["attempts"], event)
