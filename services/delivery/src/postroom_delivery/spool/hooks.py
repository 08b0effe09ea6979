"""Webhooks as the spool keeps them: an event with what its message knows, and how far a target has been told. Values only."""

from dataclasses import dataclass

# What one read of events may bring into memory (some KiB each at the worst), and what one request tells at most.
PAGE = 100
# Beyond this nobody counts what waits for a target.
MOST_BACKLOG = 10_000


@dataclass(frozen=True, slots=True)
class HookEvent:
    """In the order of the columns of `hook_events`."""

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
    attempt: int
    tenant: str
    domain: str
    credential: str
    campaign: str
    pool: str


@dataclass(frozen=True, slots=True)
class HookState:
    """Of one target, by name. Times are Unix milliseconds, 0 is never.

    `cursor` is the number of the last event that is done with. `upto` is the last event of a request that has failed, so that it is repeated with
    the same content; 0: the last one succeeded. `sent` and `lost` count events, `failures` the requests that failed since the last success.
    """

    name: str
    cursor: int
    upto: int = 0
    sent: int = 0
    lost: int = 0
    failures: int = 0
    failing_since: int = 0
    next_at: int = 0
    last_at: int = 0
    last_text: str = ""

    def columns(self) -> tuple[int | str, ...]:
        """As the engines store them."""
        counts = (self.sent, self.lost, self.failures)
        return (self.name, self.cursor, self.upto, *counts, self.failing_since, self.next_at, self.last_at, self.last_text)
