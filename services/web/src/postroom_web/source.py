"""What the page asks of the rest, as protocols: `postroom up` gives it the command's gRPC client; a cluster will give it its own.

The shapes are those of the command's client, so that a person sees the same in a terminal and in a browser.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from postroom_insight.finding import Finding


class Recipient(Protocol):
    """One recipient's state; times in Unix milliseconds."""

    @property
    def address(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def due_at(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def last_reply(self) -> str: ...
    @property
    def last_class(self) -> str: ...


class Message(Protocol):
    """A message with its recipients."""

    @property
    def id(self) -> str: ...
    @property
    def reverse_path(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def received_at(self) -> int: ...
    @property
    def expires_at(self) -> int: ...
    @property
    def credential(self) -> str: ...
    @property
    def recipients(self) -> Sequence[Recipient]: ...


class Event(Protocol):
    """One state change of a message."""

    @property
    def at(self) -> int: ...
    @property
    def recipient(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def code(self) -> int: ...
    @property
    def enhanced(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def classification(self) -> str: ...
    @property
    def remote(self) -> str: ...
    @property
    def tls(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class Suppressed(Protocol):
    """An address that gets no mail from somebody. `owner` is the tenant or the domain, "" for everybody; `expires_at` 0 is never."""

    @property
    def address(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def evidence(self) -> str: ...
    @property
    def created_at(self) -> int: ...
    @property
    def expires_at(self) -> int: ...


class Queue(Protocol):
    """The running delivery. Raises Unavailable when it does not answer, Permanent for what it does not know."""

    async def list(
        self, *, states: Sequence[str] = (), domain: str = "", sender: str = "", limit: int = 100, after: str = ""
    ) -> Sequence[Message]: ...

    async def show(self, message_id: str) -> Message: ...

    def events(self, message_id: str = "") -> AsyncIterator[Event]: ...

    async def act(self, action: str, ids: Sequence[str]) -> int: ...

    async def suspend(self, pool: str, destination: str, *, suspended: bool) -> int: ...

    def suppressions(self, *, scope: str = "", owner: str = "", address: str = "") -> AsyncIterator[Suppressed]: ...

    async def change_suppressions(self, entries: Sequence[Any], *, remove: bool = False) -> int: ...

    async def curbs(self) -> Sequence[Mapping[str, Any]]: ...

    async def webhooks(self, domain: str = "") -> Sequence[Mapping[str, Any]]: ...

    async def stats(self) -> dict[str, Any]: ...

    async def analytics(self, since: int, until: int, by: Sequence[str], where: Mapping[str, str]) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """A record that a domain needs."""

    name: str
    type: str
    value: str
    required: bool
    purpose: str


@dataclass(frozen=True, slots=True)
class Source:
    """`queue` opens a client; `domains` gives every domain's records; `check` looks at one as the world does; `now` is Unix milliseconds."""

    queue: Callable[[], AbstractAsyncContextManager[Queue]]
    domains: Callable[[], Mapping[str, Sequence[DomainRecord]]]
    check: Callable[[str], Awaitable[Sequence[Finding]]]
    now: Callable[[], int]
