"""What a Sink can be told to do wrong, as plain data: actions, and rules that say when.

Verbs are the SMTP ones plus three moments that have no verb: CONNECT (the greeting), "." (the reply to the final dot) and TLS (the handshake).
Nothing here does I/O; postroom_core.testing.sink carries the actions out.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Sends `reply` (may be empty) and closes. `reset` sends RST instead of FIN, and may lose the reply."""

    reply: bytes = b""
    reset: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Replies when `event` is set: with `reply`, or as if there were no fault when None."""

    event: asyncio.Event
    reply: bytes | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Hang:
    """Keeps the connection open and never replies again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Endless:
    """Sends `chunk` again and again until the client goes away: a reply without an end, or with a line without an end."""

    chunk: bytes = b"250-more of the same\r\n"


@dataclasses.dataclass(frozen=True, slots=True)
class GarbageTls:
    """As the action for TLS: octets that are no TLS instead of the handshake."""

    octets: bytes = b"550 no TLS today\r\n" * 4


Action = bytes | Drop | Wait | Hang | Endless | GarbageTls


class SessionView(Protocol):
    """What a script may ask about the session."""

    @property
    def number(self) -> int:
        """1 for the first connection of the sink."""

    @property
    def message(self) -> int:
        """1 during the first transaction of this session."""

    @property
    def accepted(self) -> int:
        """Recipients accepted in this transaction."""

    @property
    def secured(self) -> bool:
        """Whether the session is in TLS."""


Script = Callable[[SessionView, str, str], Action | None]


@dataclasses.dataclass(slots=True)
class Rule:
    """`action` where every given condition holds. Replies need no CRLF at their end.

    `verb`: "RCPT", "CONNECT", ".", …; `argument`: contained in what follows the verb, case ignored; `session`, `message`: ordinals from 1;
    `accepted`: at least so many recipients were accepted in this transaction; `times`: how often the rule acts before it is used up.
    """

    verb: str
    action: Action
    argument: str = ""
    session: int | None = None
    message: int | None = None
    accepted: int = 0
    times: int | None = None

    def applies(self, session: SessionView, verb: str, argument: str) -> bool:
        """Whether the rule acts now."""
        return (
            verb == self.verb
            and self.times != 0
            and self.argument.lower() in argument.lower()
            and self.session in (None, session.number)
            and self.message in (None, session.message)
            and session.accepted >= self.accepted
        )


def script(rules: Sequence[Rule]) -> Script:
    """A script that takes the first rule that applies. The list may be changed while the sink runs."""

    def run(session: SessionView, verb: str, argument: str) -> Action | None:
        for rule in rules:
            if rule.applies(session, verb, argument):
                if rule.times is not None:
                    rule.times -= 1
                return rule.action
        return None

    return run
