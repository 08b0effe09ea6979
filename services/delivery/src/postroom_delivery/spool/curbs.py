"""Curbs on senders as the spool keeps them: who is alerted about, slowed down or paused, why, and until when. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curb:
    """Of one sender, by name (see postroom_delivery.reputation). Times are Unix milliseconds.

    `level` is none, alert, slow or pause; it counts until `until`. `text` has the numbers. `pace` is messages an hour while slowed down. Until
    `spared_until` nobody judges the sender, because a person said so.
    """

    name: str
    level: str
    signal: str
    text: str
    since: int
    until: int
    pace: int
    spared_until: int = 0

    def columns(self) -> tuple[int | str, ...]:
        """As the engines store them."""
        return (self.name, self.level, self.signal, self.text, self.since, self.until, self.pace, self.spared_until)
