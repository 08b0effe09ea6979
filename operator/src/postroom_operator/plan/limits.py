"""Sending limits of a resource → of a document. Pure; the same for credentials, domains and the tenants of a pool."""

from typing import Any

from postroom_core.documents import Limits
from postroom_operator.plan.findings import Path, Problem


def compile_limits(limits: dict[str, Any], path: Path, problems: list[Problem]) -> Limits:
    """`path` is where they stand; what contradicts itself is added to `problems`."""
    for what in ("messages", "recipients"):
        hour, day = limits.get(f"{what}PerHour"), limits.get(f"{what}PerDay")
        if hour is not None and day is not None and hour > day:
            problems.append(Problem((*path, f"{what}PerHour"), f"{what}PerHour exceeds {what}PerDay"))
    return Limits(
        messages_per_hour=limits.get("messagesPerHour"),
        messages_per_day=limits.get("messagesPerDay"),
        recipients_per_hour=limits.get("recipientsPerHour"),
        recipients_per_day=limits.get("recipientsPerDay"),
        max_message_bytes=limits.get("maxMessageBytes"),
        max_recipients_per_message=limits.get("maxRecipientsPerMessage"),
        max_connections=limits.get("maxConnections"),
    )
