"""Conditions (metav1): how observations become status, and which of them are news. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from postroom_operator.plan.names import Object

Status = Literal["True", "False", "Unknown"]
MESSAGE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One observation. `reason` is stable API, `message` says what to do."""

    type: str
    status: Status
    reason: str
    message: str = ""


def when(met: bool, kind: str, good: str, bad: str, message: str = "") -> Condition:
    """True with one reason or False with another; the message belongs to the bad one."""
    return Condition(kind, "True", good) if met else Condition(kind, "False", bad, message)


def ready(conditions: Sequence[Condition], needed: Iterable[str]) -> Condition:
    """The summary: the first needed condition that is not True gives reason and message."""
    by_type = {condition.type: condition for condition in conditions}
    for name in needed:
        found = by_type.get(name)
        if found is not None and found.status != "True":
            return Condition("Ready", found.status, found.reason, f"{name}: {found.message}" if found.message else name)
    return Condition("Ready", "True", "AllReady")


def merged(previous: Sequence[Object], wanted: Sequence[Condition], generation: int, now: datetime) -> list[Object]:
    """As they stand in status; lastTransitionTime moves only with `status`."""
    before = {condition["type"]: condition for condition in previous}
    found = []
    for condition in wanted:
        old = before.get(condition.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == condition.status else None
        found.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message[:MESSAGE_LIMIT],
                "observedGeneration": generation,
                "lastTransitionTime": since or stamp(now),
            }
        )
    return found


def transitions(previous: Sequence[Object], current: Sequence[Object]) -> list[Object]:
    """The conditions whose status or reason is new: what an Event is worth."""
    before = {condition["type"]: (condition["status"], condition["reason"]) for condition in previous}
    return [condition for condition in current if before.get(condition["type"]) != (condition["status"], condition["reason"])]


def stamp(moment: datetime) -> str:
    """As metav1.Time: UTC, whole seconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def moment(text: str) -> datetime:
    """What `stamp` wrote."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
