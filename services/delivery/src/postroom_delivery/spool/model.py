"""What goes into the spool and what comes out of it, as values. Times are Unix milliseconds. No I/O.

A *recipient* is the unit of state. A *claim* is one recipient leased to one worker: (recipient, holder, fence). The fence grows with every
lease, so that a worker whose lease was taken over can change nothing any more. A *batch* is what one connection gets at once: claims for one
destination, grouped by message.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from postroom_core.errors import PostroomError
from postroom_core.reply import Reply
from postroom_delivery.limits import Budget, Rate


class State(Enum):
    """States of a recipient. Scheduled, leased and held are open; the others are final."""

    SCHEDULED = "scheduled"
    LEASED = "leased"
    HELD = "held"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DELETED = "deleted"


OPEN_STATES = (State.SCHEDULED, State.LEASED, State.HELD)


@dataclass(frozen=True, slots=True)
class NewRecipient:
    """`destination` is where to connect: the domain, or a smart-host route's name; see postroom_delivery.routing."""

    address: str
    destination: str
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Allowance:
    """At most `maximum` of `key` in each window of `window_seconds`, windows counted from the Unix epoch; the message counts `amount`.

    `key` begins with whose limit it is (credential:, domain:, tenant:), `unit` (messages, recipients) is for people.
    """

    key: str
    window_seconds: int
    maximum: int
    amount: int = 1
    unit: str = "messages"


@dataclass(frozen=True, slots=True)
class MailOptions:
    """What the client asked for beyond the plain message; see MailOptions in spool.proto. Zero times are no such wish."""

    smtputf8: bool = False
    require_tls: bool = False
    tls_optional: bool = False
    binary: bool = False
    hold_until: int = 0
    deliver_by: int = 0
    deliver_by_return: bool = False
    priority: int = 0

    def columns(self) -> tuple[int, ...]:
        """In the order in which the engines store them."""
        flags = (self.smtputf8, self.require_tls, self.tls_optional, self.binary)
        return (*flags, self.hold_until, self.deliver_by, self.deliver_by_return, self.priority)


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be accepted, but its body. `headers` is the header block with trace and signatures, without the blank line.

    `sign`: made by us, and signed with the domain's DKIM keys when it leaves.
    """

    id: str
    tenant: str
    pool: str
    domain: str
    credential: str
    reverse_path: str
    recipients: tuple[NewRecipient, ...]
    headers: bytes
    body_size: int
    eight_bit: bool
    received_at: int
    expires_at: int
    ret: str = ""
    envid: str = ""
    client_address: str = ""
    traceparent: str = ""
    allowances: tuple[Allowance, ...] = ()
    options: MailOptions = MailOptions()
    sign: bool = False
    campaign: str = ""  # what analytics group by; see postroom_delivery.spool.rollup


@dataclass(frozen=True, slots=True)
class Claim:
    """One recipient leased to one worker. `delay_told`: the sender has been told of a delay, which happens once."""

    recipient: int
    fence: int
    address: str
    attempts: int
    notify: str
    orcpt: str
    delay_told: bool = False


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message with its claimed recipients. `body` is None when it is too large to travel with the claim: read it in chunks."""

    id: str
    tenant: str
    domain: str
    reverse_path: str
    headers: bytes
    body_size: int
    eight_bit: bool
    received_at: int
    expires_at: int
    ret: str
    envid: str
    traceparent: str
    body: bytes | None
    claims: tuple[Claim, ...]
    options: MailOptions = MailOptions()
    sign: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A destination of a pool: the unit of limits, connections and fairness."""

    pool: str
    destination: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Work for one connection. `slot` is the connection slot that it holds; give it back by `release_slot`."""

    key: Key
    slot: int
    messages: tuple[ClaimedMessage, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a claim must respect for one destination; `rate` is messages per second, None is unlimited.

    `budgets` are what the destination shares with others or counts over longer windows; `tenant_rates` hold for each tenant of the pool. Mail of
    the domains in `singly` leaves one recipient at a time, each of which counts as a message.
    """

    max_connections: int
    rate: int | None
    batch: int
    budgets: tuple[Budget, ...] = ()
    tenant_rates: tuple[Rate, ...] = ()
    singly: frozenset[str] = frozenset()

    def count(self, domain: str, recipients: int) -> int:
        """How many messages so many recipients of one message of this MailDomain are, on the wire."""
        return recipients if domain in self.singly else min(recipients, 1)

    def of_tenant(self, pool: str, tenant: str) -> tuple[Budget, ...]:
        """The tenant's own budget."""
        return (Budget(f"tenant:{pool}:{tenant}", self.tenant_rates),) if self.tenant_rates else ()


@dataclass(frozen=True, slots=True)
class EventDetail:
    """What an event row says beside message, recipient and time."""

    kind: str
    reply: Reply | None = None
    text: str = ""
    classification: str = ""
    remote: str = ""
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that gets no mail any more. `owner` is the tenant or domain of the scope, "" for global; `expires_at` 0 is for ever.

    Automatic and manual entries are alike; one that is there stays when it lasts longer. `number` grows with every change.
    """

    scope: str
    owner: str
    address: str
    reason: str
    evidence: str
    created_at: int
    expires_at: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class SuppressionFilter:
    """Which entries; "" is any. Pages by `after`, the number of the last one seen."""

    scope: str = ""
    owner: str = ""
    address: str = ""
    after: int = 0
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one attempt for one claim. `due_at` matters for SCHEDULED only; `attempted` counts it as an attempt, `delay_told` is remembered."""

    claim: Claim
    state: State
    event: EventDetail | None
    due_at: int = 0
    attempted: bool = True
    destination: str | None = None
    delay_told: bool = False
    suppress: Suppression | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A DSN to be accepted in the same transaction as the settlement that causes it."""

    message: NewMessage
    body: bytes


def makes_work(settlements: Iterable[Settlement], notices: Iterable[Notice]) -> bool:
    """Whether a claim should look: for what is tried again, and for notices. The end of a recipient makes nothing due."""
    return any(settlement.state is State.SCHEDULED for settlement in settlements) or any(True for _ in notices)


@dataclass(frozen=True, slots=True)
class RecipientRow:
    """A recipient as people see it."""

    id: int
    address: str
    state: State
    due_at: int
    attempts: int
    last_reply: str
    last_class: str
    ambiguous: bool
    notify: str = ""
    orcpt: str = ""
    destination: str = ""


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message as people see it."""

    id: str
    reverse_path: str
    pool: str
    tenant: str
    domain: str
    credential: str
    client_address: str
    size: int
    received_at: int
    expires_at: int
    headers: bytes
    ret: str
    envid: str
    recipients: tuple[RecipientRow, ...] = ()
    options: MailOptions = MailOptions()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message with the null reverse-path that could not be delivered: a bounce of a bounce."""

    message: str
    at: int
    reason: str
    headers: bytes


@dataclass(frozen=True, slots=True)
class EventRow:
    """One state change; numbers grow and are never used twice."""

    number: int
    at: int
    message: str
    recipient: str
    kind: str
    code: int
    enhanced: str
    text: str
    classification: str
    remote: str
    tls: str
    attempt: int


# Conditions that partial indexes of both engines have: of SQL, because an engine must see them to choose the index.
AMONG = {
    "open": "AND state IN ('scheduled', 'leased', 'held')",
    "failed": "AND state IN ('bounced', 'expired', 'deleted')",
    "any": "",
}
FAILED_STATES = (State.BOUNCED, State.EXPIRED, State.DELETED)


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which recipients; "" is any, `received_before` 0 too. Pages by `after`, the id of the last message seen."""

    states: tuple[str, ...] = tuple(state.value for state in OPEN_STATES)
    domain: str = ""
    sender: str = ""
    limit: int = 100
    after: str = ""
    tenant: str = ""
    pool: str = ""
    destination: str = ""
    classification: str = ""
    received_before: int = 0

    @property
    def among(self) -> str:
        """`open` or `failed` when only such states are asked for, which have an index of their own; else `any`."""
        groups = {"open": OPEN_STATES, "failed": FAILED_STATES}
        return next((name for name, states in groups.items() if set(self.states) <= {state.value for state in states}), "any")

    def fits(self, recipient: RecipientRow) -> bool:
        """Whether a recipient of a message that was found is one that was meant; what holds for the whole message is not asked again."""
        return (
            recipient.state.value in self.states
            and self.domain in ("", recipient.address.rpartition("@")[2])
            and self.destination in ("", recipient.destination)
            and self.classification in ("", recipient.last_class)
        )


@dataclass(frozen=True, slots=True)
class DestinationRow:
    """A destination as people see it."""

    pool: str
    destination: str
    scheduled: int
    connections: int
    suspended: bool
    next_at: int
    factor: float


# Enough for an autoscaler, and counted in milliseconds.
MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Stats:
    """The queue in numbers; `recipients` by state. `due` is counted up to MOST_COUNTED: that many means at least so many."""

    recipients: dict[str, int]
    due: int
    oldest_due_at: int
    ambiguous: int
    destinations: tuple[DestinationRow, ...] = field(default=())
    suspended_tenants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Backlog:
    """Recipients that are due and that every limit lets go now; `oldest_ms` is how long the first of them has been waiting, 0 without any."""

    due: int
    oldest_ms: int


class LostLease(PostroomError):
    """The lease of at least one claim has been taken over; nothing was changed."""
