"""The contract of a spool engine. SQLite implements it; one contract test holds every engine to it.

Order of calls for one message: `stage` any number of body chunks, then `accept` once; or `discard`. `accept` returns only when the message
is committed, and a second `accept` of the same id changes nothing. For one batch: `claim`, then per message `doubt` before the final dot and
`settle` after the reply, at last `release_slot`. A worker calls `renew` while it works; what is not renewed comes back by `recover`.
Every method raises Unavailable when the database cannot be used now; nothing is half done then.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Protocol

from postroom_core.reply import Reply
from postroom_delivery.spool.curbs import Curb
from postroom_delivery.spool.hooks import HookEvent, HookState
from postroom_delivery.spool.model import (
    Backlog,
    Batch,
    Claim,
    DeadLetter,
    EventDetail,
    EventRow,
    Key,
    Limits,
    ListFilter,
    MessageRow,
    NewMessage,
    Notice,
    RecipientRow,
    Settlement,
    Stats,
    Suppression,
    SuppressionFilter,
)
from postroom_delivery.spool.tls_tally import TlsCount, TlsSession

# A claim is ours for this long without a renewal; renewals come every third of it, so two may fail.
LEASE_MS = 60_000


class Memory(Protocol):
    """What was learnt about the world and must outlive a restart: small values, each with an end. `until` is Unix milliseconds."""

    async def recall(self, now: int, kind: str, name: str) -> str | None:
        """The value, None when there is none or its time is over."""

    async def remember(self, now: int, kind: str, name: str, value: str, until: int) -> None:
        """Keeps the value until then; a later one replaces it."""

    async def agree(self, now: int, kind: str, name: str, value: str, until: int) -> str:
        """The value that stands for all processes: the one whose time is not over, else this one, which is kept until then."""


class RollUps(Protocol):
    """Analytics: counts its events once, for questions that never scan them. See postroom_delivery.spool.rollup."""

    async def roll_up(self) -> int:
        """Counts the next page of events; how many. Safe to call from several processes: each event is counted once."""

    async def facts(self, span: tuple[int, int, int], by: tuple[str, ...], where: Mapping[str, str]) -> list[tuple[tuple[str, ...], str, int, int]]:
        """(group's values, measure, bucket, count) of `span`: grain, since and until in milliseconds."""

    async def forget_facts(self, now: int) -> None:
        """Drops what is older than is kept."""


class TlsResults(Protocol):
    """How TLS sessions went, by day (days since 1970, UTC); they are counted in the transaction of the settlement that they led to."""

    async def tls_domains(self, day: int, after: str, limit: int) -> list[str]:
        """Domains with sessions of that day, in order; pages by `after`, the last one seen."""

    async def tls_counts(self, day: int, domain: str) -> list[TlsCount]:
        """The sessions of that day, of all processes."""

    async def forget_tls(self, day: int, domain: str = "") -> None:
        """Forgets a day of a domain; without one all days up to that one."""


class Hooks(Protocol):
    """Webhooks: events in their order for those who are told of them, how far each has been told, and who tells. See postroom_delivery.webhooks."""

    async def hold_duty(self, now: int, name: str, lasts_ms: int) -> bool:
        """Takes or renews what exactly one process does, for so long from now (not above 0: gives it back); False while another has it."""

    async def hook(self, name: str) -> HookState:
        """Of a target; a new one begins with what happens from now on."""

    async def hooks(self) -> list[HookState]:
        """Of every target that there ever was."""

    async def hook_events(self, after: int) -> list[HookEvent]:
        """The next page of events of all domains in the order of their numbers."""

    async def move_hook(self, duty: str, state: HookState) -> bool:
        """Keeps the state; False, and nothing is changed, when another process has the duty now."""

    async def hook_backlog(self, after: int, domain: str) -> list[tuple[str, int, int]]:
        """(kind, how many, time of the first) of a domain's events after this one; see postroom_delivery.spool.hooks.MOST_BACKLOG."""


class Curbs(Protocol):
    """Outgoing spam control, see postroom_delivery.reputation."""

    async def curbs(self) -> list[Curb]:
        """All that there ever were, by name."""

    async def set_curb(self, now: int, curb: Curb, event: EventDetail | None) -> None:
        """Keeps a curb in place of the one of that name; the event tells of it, with the sender's name as its recipient and no message."""


class Spool(Memory, RollUps, TlsResults, Hooks, Curbs, Protocol):
    """See the module's text for the order of calls.

    `name` is for people and holds no secret. `changed` is set when work may have become due: it wakes the claiming loop, so a
    claim must never set it. `lease_ms` is how long a claim lasts without a renewal.
    """

    name: str
    changed: asyncio.Event
    lease_ms: int

    def fault(self) -> str:
        """Why the database cannot be used now; "" when it can."""

    def has_room(self) -> bool:
        """Whether a new message may come: deliveries and their events need room to end what is there."""

    async def stage(self, message_id: str, sequence: int, chunk: bytes) -> None:
        """Stores one chunk of a body whose message is not accepted yet."""

    async def discard(self, message_id: str) -> None:
        """Forgets the chunks of a message that was never accepted; does nothing to an accepted one."""

    async def accept(self, message: NewMessage, last_chunk: tuple[int, bytes]) -> Reply | None:
        """Commits the message with its last chunk, recipients and counters. A reply refuses it and stores nothing."""

    async def claim(self, now: int, room: int, idle: Collection[Key]) -> tuple[list[Batch], int | None]:
        """Leases due work for at most `room` connections, in one transaction with rate tokens and slots.

        A destination in `idle` has a connection that waits: its batch needs no new slot (Batch.slot is 0). The second value is the time of the
        next due work, None when there is none.
        """

    async def doubt(self, claims: Sequence[Claim]) -> None:
        """Records before the final dot that from now on the peer may have the message. Raises LostLease."""

    async def settle(self, now: int, settlements: Sequence[Settlement], notices: Sequence[Notice], sessions: Sequence[TlsSession] = ()) -> None:
        """Commits the end of attempts with their events and DSNs, and how TLS went. Raises LostLease."""

    async def release_slot(self, now: int, batch: Batch, blocked_until: int) -> None:
        """Gives a connection slot back; with `blocked_until` > now the destination is left alone until then."""

    async def throttle(self, now: int, key: Key) -> None:
        """Halves the pace of a destination that asked for less, at most once in a while; it recovers by itself. See postroom_delivery.limits."""

    async def renew(self, now: int) -> None:
        """Extends every lease and slot of this process."""

    async def give_back(self, now: int, claims: Sequence[Claim], due_at: int) -> int:
        """Schedules what this process still holds of these claims and nobody works on; one in doubt is told as `ambiguous`. How many."""

    async def recover(self, now: int) -> int:
        """Makes claims whose lease has ended due again; how many."""

    def body(self, message_id: str) -> AsyncIterator[bytes]:
        """The body in order, in chunks as stored."""

    async def list_messages(self, which: ListFilter) -> list[MessageRow]:
        """Oldest first."""

    async def show(self, message_id: str) -> MessageRow | None:
        """None when it is unknown."""

    async def events(self, message_id: str, after: int, limit: int) -> list[EventRow]:
        """In order of their numbers, `message_id` "" for all."""

    async def dead_letters(self, before: DeadLetter | None, limit: int) -> list[DeadLetter]:
        """What could be told to nobody, newest first; pages by `before`, the last one seen."""

    async def reschedule(self, now: int, action: str, recipients: Sequence[RecipientRow]) -> int:
        """`retry`, `hold` or `release` on open recipients that are not leased; how many changed."""

    async def end(self, now: int, recipients: Sequence[RecipientRow], settlement: Callable[[Claim], Settlement], notices: Sequence[Notice]) -> int:
        """Ends open recipients that are not leased, by command; how many changed."""

    async def suspend(self, now: int, key: Key, suspended: bool) -> int:
        """Stops or resumes all claims of a destination; 0 when it is unknown and nothing was suspended."""

    async def suspend_tenant(self, now: int, tenant: str, suspended: bool) -> int:
        """Stops or resumes all claims of a tenant's mail in every pool; its mail is accepted all the same. 0 when nothing changed."""

    async def stats(self, now: int) -> Stats:
        """The queue in numbers."""

    async def backlog(self, now: int) -> Backlog:
        """What could leave now if there were more workers, of the whole spool, whichever process is asked. See postroom_delivery.spool.backlog."""

    async def tell(self, now: int, message_id: str, address: str, event: EventDetail, entries: Sequence[Suppression]) -> int:
        """Appends an event to a message's story, with entries for the suppression list; how many of these are new or last longer now."""

    async def suppress(self, entries: Sequence[Suppression]) -> int:
        """Adds entries; how many are new or last longer now."""

    async def unsuppress(self, entries: Sequence[Suppression]) -> int:
        """Removes entries by scope, owner and address; how many were there."""

    async def suppressions(self, which: SuppressionFilter) -> list[Suppression]:
        """In order of their numbers, expired ones too until they are swept."""

    async def suppressed(self, now: int, tenant: str, domain: str, addresses: Sequence[str]) -> dict[str, Suppression]:
        """The entry in force for each of these addresses (in lower case) that has one."""

    async def sweep(self, before: int) -> int:
        """Forgets final messages and events older than `before`, a bounded number at a time; how many messages."""


LimitsOf = Callable[[Key], Limits]
