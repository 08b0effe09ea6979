"""SQLite: claiming due work. P3: lease, rate tokens and connection slot are taken in one transaction, or none of them.

How fairness comes about: destinations are visited in the order of `next_at`, and a visited one goes to the end of the line; within a
destination the tenants' lanes take turns by `turn_at`. A destination that is blocked, out of tokens or out of slots is not visited again
before that can have changed, so a million messages behind a dead host cost nothing.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from postroom_delivery import limits
from postroom_delivery.spool import clockmark
from postroom_delivery.spool.interface import LimitsOf
from postroom_delivery.spool.model import Batch, Claim, ClaimedMessage, EventDetail, Key, Limits
from postroom_delivery.spool.rows import claimed_message
from postroom_delivery.spool.sqlite_accept import NEVER, SQL, insert_event, turn, wake

# Bodies up to this travel with the claim; larger ones are read in chunks while they are sent.
INLINE_BODY = 64 * 1024
# One batch holds at most this much, so that all connections together stay within tens of MiB.
BATCH_BYTES = 512 * 1024
# Messages in one batch. A connection carries more by asking again; only then the next tenant has its turn, and a worker is one of two hundred.
BATCH_MESSAGES = 10
IN_DOUBT = "The attempt ended after the final dot and before the reply was recorded; the peer may have the message already"
# RFC 5321 section 4.5.3.1.8: every server takes 100 recipients in one transaction.
BATCH_RECIPIENTS = 100
# How soon a destination is looked at again that found no connection left in its pool.
POOL_FULL_MS = 500
_BODY_SIZE = 5  # its column in the statement `claimed_message`

_Due = tuple[int, str, str, int, int, str, str, int]


class Claiming:
    """One claim transaction for `holder`; leases end at `lease_until`."""

    def __init__(self, connection: sqlite3.Connection, now: int, holder: str, lease_until: int, limits_of: LimitsOf) -> None:
        self._connection = connection
        self._now = now
        self._holder = holder
        self._lease_until = lease_until
        self._limits_of = limits_of
        self._ledger = limits.Ledger(now, self._bucket)

    def _bucket(self, key: str, seconds: int) -> limits.Bucket:
        row = self._connection.execute(SQL["bucket"], (key, seconds)).fetchone()
        return limits.Bucket(*row) if row else limits.Bucket(None, None)

    def claim(self, room: int, idle: Collection[Key]) -> tuple[list[Batch], int | None]:
        """See Spool.claim. Destinations that wait for a slot or a token do not use up the room."""
        batches: list[Batch] = []
        # Each round moves every visited destination behind `now` or to the end of the line; two rounds bound the transaction.
        found = {Key(*row[:2]): (limits.Bucket(*row[2:4]), limits.Pace(*row[4:]).now(self._now)) for row in self._visits(room, idle)}
        for key, (bucket, factor) in found.items():
            batch = self._claim_destination(key, bucket, factor, key in idle)
            if batch is not None:
                batches.append(batch)
            if len(batches) == room:
                break
        changed = [(*key, bucket.tokens, bucket.at) for key, bucket in self._ledger.changed.items()]
        self._connection.executemany(SQL["write_bucket"], changed)
        (next_at,) = self._connection.execute(SQL["next_at"]).fetchone()
        return batches, next_at

    def _visits(self, room: int, idle: Collection[Key]) -> Iterator[tuple[Any, ...]]:
        """Connections that wait come first: they cost no handshake."""
        for key in idle:
            where = {"pool": key.pool, "destination": key.destination, "now": self._now}
            yield from self._connection.execute(SQL["idle_destination"], where).fetchall()
        yield from self._connection.execute(SQL["due_destinations"], (self._now, room * 2)).fetchall()

    def _claim_destination(self, key: Key, bucket: limits.Bucket, factor: float, idle: bool) -> Batch | None:
        limit = self._limits_of(key)
        if not idle and (slot_free_at := self._no_slot(key, limit, factor)):
            self._visit_again(key, slot_free_at, bucket)
            return None
        rate = limits.per_second(limit.rate, factor)
        bucket = limits.refill(bucket, rate, self._now)
        allowed = min(limit.batch, BATCH_MESSAGES, limits.available(bucket), self._ledger.available(limit.budgets))
        if allowed < 1:
            self._visit_again(key, self._now + max(self._wait_ms(bucket, rate), self._ledger.wait_ms(limit.budgets)), bucket)
            return None
        messages = self._take(key, limit, allowed)
        bucket = limits.spend(bucket, taken := _count(messages, limit))
        self._ledger.spend(limit.budgets, taken)
        due = self._connection.execute(SQL["lane_next_due"], (key.pool, key.destination)).fetchone()[0]
        wait = max(self._wait_ms(bucket, rate), self._ledger.wait_ms(limit.budgets))
        self._visit_again(key, None if due in (None, NEVER) else max(due, self._now + wait), bucket)
        if not messages:
            return None
        slot = 0 if idle else self._slot(key)
        return Batch(key=key, slot=slot, messages=tuple(messages))

    def _no_slot(self, key: Key, limit: Limits, factor: float) -> int:
        """When a connection may be free, if none is now; else 0."""
        used, free_at = self._connection.execute(SQL["slots"], (key.pool, key.destination)).fetchone()
        if used >= limits.connections(limit.max_connections, factor):
            return max(int(free_at or 0), self._now + 1)
        for most in (budget.max_connections for budget in limit.budgets if budget.max_connections is not None):
            used, free_at = self._connection.execute(SQL["slots_of_pool"], (key.pool,)).fetchone()
            if used >= most:
                # Some slot of the pool comes back at any time, and not only when a lease ends.
                return min(int(free_at), self._now + POOL_FULL_MS)
        return 0

    def _wait_ms(self, bucket: limits.Bucket, rate: limits.Rate | None) -> int:
        return limits.wait_ms(bucket, rate) if limits.available(bucket) < 1 else 0

    def _visit_again(self, key: Key, at: int | None, bucket: limits.Bucket) -> None:
        self._connection.execute(SQL["update_destination"], (at, bucket.tokens, bucket.at, key.pool, key.destination))

    def _slot(self, key: Key) -> int:
        cursor = self._connection.execute(SQL["insert_slot"], (key.pool, key.destination, self._holder, self._lease_until))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _take(self, key: Key, limit: Limits, allowed: int) -> list[ClaimedMessage]:
        """At most `allowed` messages of the tenants whose turn it is; one that has used up its rate waits."""
        messages: list[ClaimedMessage] = []
        tenants = self._connection.execute(SQL["due_lanes"], (key.pool, key.destination, self._now, 4)).fetchall()
        for (tenant,) in tenants:
            budgets = limit.of_tenant(key.pool, tenant)
            if wait := self._ledger.wait_ms(budgets):
                self._connection.execute(SQL["lane_waits"], (self._now + wait, key.pool, key.destination, tenant))
                continue
            rows = self._due(key, tenant)
            messages.extend(self._lease(rows, min(allowed, self._ledger.available(budgets)), limit))
            self._ledger.spend(budgets, _count(messages, limit))
            turn(self._connection, self._now, key.pool, key.destination, tenant)
            if messages:
                break
        self._connection.execute(SQL["delete_empty_lanes"], (key.pool, key.destination))
        return messages

    def _due(self, key: Key, tenant: str) -> list[_Due]:
        """The tenant's due recipients for one batch, by priority, then by time."""
        rows: list[_Due] = []
        lane = (key.pool, key.destination, tenant)
        for (priority,) in self._connection.execute(SQL["lane_priorities"], lane).fetchall():
            left = BATCH_RECIPIENTS - len(rows)
            rows += self._connection.execute(SQL["due_recipients"], (*lane, priority, self._now, left)).fetchall() if left else []
        return rows

    def _lease(self, rows: list[_Due], allowed: int, limit: Limits) -> list[ClaimedMessage]:
        by_message: dict[str, list[_Due]] = {}
        for row in rows:
            by_message.setdefault(row[1], []).append(row)
        messages: list[ClaimedMessage] = []
        volume = 0
        for message_id, recipients in by_message.items():
            if allowed < 1 or (messages and volume >= BATCH_BYTES):
                break
            (domain,) = self._connection.execute(SQL["domain_of_message"], (message_id,)).fetchone() if limit.singly else ("",)
            leaving = recipients[:allowed] if domain in limit.singly else recipients
            allowed -= limit.count(domain, len(leaving))
            claimed = self._message(message_id, tuple(self._lease_recipient(row) for row in leaving))
            volume += len(claimed.headers) + len(claimed.body or b"")
            messages.append(claimed)
        return messages

    def _lease_recipient(self, row: _Due) -> Claim:
        number, _, address, attempts, fence, notify, orcpt, delay_told = row
        self._connection.execute(SQL["lease_recipient"], (self._holder, self._lease_until, number))
        return Claim(recipient=number, fence=fence + 1, address=address, attempts=attempts, notify=notify, orcpt=orcpt, delay_told=bool(delay_told))

    def _message(self, message_id: str, claims: tuple[Claim, ...]) -> ClaimedMessage:
        row = self._connection.execute(SQL["claimed_message"], (message_id,)).fetchone()
        body = None
        if row[_BODY_SIZE] <= INLINE_BODY:
            body = b"".join(chunk for (chunk,) in self._connection.execute(SQL["read_body"], (message_id, 0, 8)))
        return claimed_message(row, body, claims)


def _count(messages: Collection[ClaimedMessage], limit: Limits) -> int:
    return sum(limit.count(message.domain, len(message.claims)) for message in messages)


def follow_clock(connection: sqlite3.Connection, now: int, lease_until: int) -> int:
    """Moves what waits back when the clock has gone back, see postroom_delivery.spool.clockmark; by how many milliseconds."""
    row = connection.execute(SQL["latest_time"]).fetchone()
    found = clockmark.back(int(row[0]) if row is not None else None, now)
    if found:
        where = {"now": now, "back": found, "lease": lease_until}
        for statement in ("back_recipients", "back_leases", "back_slots", "back_lanes", "back_destinations", "back_buckets"):
            connection.execute(SQL[statement], where)
    if found or row is None or int(row[0]) < now:
        connection.execute(SQL["set_latest_time"], (str(now),))
    return found


def give_back(connection: sqlite3.Connection, now: int, holder: str, claims: Sequence[Claim], due_at: int) -> int:
    """See Spool.give_back."""
    held = [(claim.recipient, holder, claim.fence) for claim in claims]
    rows = [row for claim in held for row in connection.execute(SQL["held_claim"], claim).fetchall()]
    _take_back(connection, now, rows, due_at)
    return len(rows)


def _take_back(connection: sqlite3.Connection, now: int, rows: Sequence[Any], due_at: int) -> None:
    for number, message, address, pool, destination, tenant, attempts, in_doubt in rows:
        connection.execute(SQL["take_back"], (due_at, number))
        wake(connection, pool, destination, tenant, due_at)
        if in_doubt:
            insert_event(connection, now, message, address, attempts + 1, EventDetail("ambiguous", text=IN_DOUBT, classification="network"))


def recover(connection: sqlite3.Connection, now: int, ended_before: int) -> int:
    """Makes due again what was leased until before `ended_before`; a claim in doubt is told as an `ambiguous` event."""
    rows = connection.execute(SQL["expired_recipients"], (ended_before,)).fetchall()
    _take_back(connection, now, rows, now)
    for slot, pool, destination in connection.execute(SQL["expired_slots"], (ended_before,)).fetchall():
        connection.execute(SQL["delete_slot"], (slot,))
        connection.execute(SQL["block_destination"], {"until": 0, "now": now, "pool": pool, "destination": destination})
    return len(rows)
