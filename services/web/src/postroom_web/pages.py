"""What each page shows: asks the source, sums, explains. No HTML here and no HTTP: the templates and `app` have them."""

import importlib.resources
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from postroom_core.errors import Permanent
from postroom_insight import explanations
from postroom_web import plots
from postroom_web.source import DomainRecord, Event, Queue, Suppressed

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
KINDS = ("delivered", "deferred", "bounced", "expired")
PLOTTED = ("delivered", "accepted", "deferred", "bounced")
STATES = ("scheduled", "leased", "held", "delivered", "bounced", "expired", "deleted")
ROWS = 50
# The story of one message: a list with thousands of recipients is cut, and says so.
MOST_EVENTS = 1000
# A page of the suppression list; one address is found by its name.
MOST_SUPPRESSED = 200
ACTIONS = {
    "retry": "Try again now",
    "hold": "Put on hold",
    "release": "Let go on",
    "bounce": "End with a notice to the sender",
    "rm": "End without a notice",
}
ASSETS = {
    name: ((importlib.resources.files("postroom_web") / "assets" / name).read_bytes(), kind)
    for name, kind in (("style.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml"))
}
_FAILURES = frozenset({"deferred", "bounced", "expired", "bounced-later", "suppressed", "dead-letter"})


def when(ms: int) -> str:
    """UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if ms else "–"


def ago(ms: int, now: int) -> str:
    """A distance in time for people."""
    seconds = abs(now - ms) // 1000
    text = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
    return f"in {text}" if ms > now else f"{text} ago"


def duration(ms: float) -> str:
    """Milliseconds for people."""
    return (
        f"{ms:.0f} ms"
        if ms < 1000
        else f"{ms / 1000:.1f} s"
        if ms < 120_000
        else f"{ms / 60_000:.0f} min"
        if ms < 7_200_000
        else f"{ms / 3_600_000:.0f} h"
    )


def size(octets: int) -> str:
    return f"{octets} B" if octets < 10_000 else f"{octets / 1024:.0f} KiB" if octets < 10_000_000 else f"{octets / 1_048_576:.0f} MiB"


FILTERS = {"when": when, "ago": ago, "duration": duration, "size": size, "grouped": lambda number: f"{number:,}".replace(",", "\u202f")}


async def counted(queue: Queue, since: int, until: int, by: Sequence[str], where: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    """Of analytics; nothing when they are switched off, because what waits can be shown all the same."""
    try:
        return await queue.analytics(since, until, by, where)
    except Permanent:
        return []


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    return {kind: int(row["counts"].get(kind, 0)) for kind in ("accepted", *KINDS)}


def _series(rows: Sequence[Mapping[str, Any]], places: Sequence[int], kinds: Sequence[str] = PLOTTED) -> dict[str, list[int]]:
    """Per kind one value per place in time; times without a row are 0."""
    found = {int(row["values"][0]): row["counts"] for row in rows}
    return {kind: [int(found.get(at, {}).get(kind, 0)) for at in places] for kind in kinds}


async def overview(queue: Queue, now: int) -> dict[str, Any]:
    """The last hour by minute, the last day by hour, what waits, and what goes wrong most."""
    minute, hour = now - now % MINUTE_MS, now - now % HOUR_MS
    minutes = [minute - MINUTE_MS * back for back in range(59, -1, -1)]
    hours = [hour - HOUR_MS * back for back in range(23, -1, -1)]
    stats = await queue.stats()
    live = _series(await counted(queue, minutes[0], now + 1, ["minute"], {}), minutes)
    day = _series(await counted(queue, hours[0], now + 1, ["hour"], {}), hours)
    whole, off = await _whole_or_off(queue, hours[0], now + 1)
    causes = await counted(queue, hours[0], now + 1, ["class"], {})
    total = _counts(whole[0]) if whole else dict.fromkeys(("accepted", *KINDS), 0)
    latency = whole[0]["latencies"].get("delivery") if whole else None
    return {
        "stats": stats,
        "total": total,
        "latency": latency,
        "off": off,
        "live": plots.lines("Last hour, per minute", live, [when(at)[11:16] for at in minutes]),
        "day": plots.lines("Last 24 hours, per hour", day, [when(at)[11:16] for at in hours]),
        "causes": _causes(causes),
        "curbs": [curb for curb in await queue.curbs() if curb["level"] != "none"],
        "webhooks": [hook for hook in await queue.webhooks() if hook["health"] in ("failing", "dead")],
        "bar": plots.bar,
    }


async def _whole_or_off(queue: Queue, since: int, until: int) -> tuple[Sequence[Mapping[str, Any]], str]:
    """(everything as one row, why nothing is counted)."""
    try:
        return await queue.analytics(since, until, [], {}), ""
    except Permanent as error:
        return [], str(error)


def _causes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Classes with failures, most first, each with its explanation."""
    found = []
    for row in rows:
        counts = _counts(row)
        failures = counts["deferred"] + counts["bounced"] + counts["expired"]
        if failures and row["values"][0]:
            explained = explanations.explain("", row["values"][0])
            found.append({"class": row["values"][0], "counts": counts, "failures": failures, "explained": explained})
    return sorted(found, key=lambda cause: -cause["failures"])


async def queue(found: Queue, query: Mapping[str, Any]) -> dict[str, Any]:
    """One page of the queue."""
    state, domain, sender, after = (str(query.get(name, "")).strip() for name in ("state", "domain", "sender", "after"))
    if state and state not in STATES:
        raise Permanent(f"there is no state {state}")
    messages = await found.list(states=(state,) if state else (), domain=domain, sender=sender, limit=ROWS, after=after)
    done = query.get("done") if query.get("done") in ACTIONS else None
    return {
        "messages": messages,
        "states": STATES,
        "chosen": {"state": state, "domain": domain, "sender": sender, "after": after},
        "more": messages[-1].id if len(messages) == ROWS else "",
        "actions": ACTIONS,
        "done": ACTIONS[done] if done else "",
        "changed": str(query.get("changed", "")),
    }


async def message(found: Queue, message_id: str) -> dict[str, Any]:
    """The story: every event with the reply in full, and what it means."""
    shown = await found.show(message_id)
    told: list[dict[str, Any]] = []
    async for event in found.events(message_id):
        told.append({"event": event, "explained": explained(event, shown.reverse_path, message_id)})
        if len(told) == MOST_EVENTS:
            break
    return {"message": shown, "story": told, "cut": len(told) == MOST_EVENTS, "actions": ACTIONS, "open": _open(shown.recipients)}


def _open(recipients: Sequence[Any]) -> bool:
    return any(recipient.state in ("scheduled", "leased", "held") for recipient in recipients)


def explained(event: Event, sender: str, message_id: str) -> explanations.Explanation | None:
    """Of a failure that somebody or the network caused."""
    if event.kind not in _FAILURES or not event.classification or (event.classification == "other" and not event.code):
        return None
    found = explanations.explain(f"{event.code or ''} {event.enhanced} {event.text}".strip(), event.classification)
    domains = {"sender": sender.rpartition("@")[2], "domain": event.recipient.rpartition("@")[2]}
    return found.filled(**domains, message_id=message_id) if found is not None else None


def confirmation(query: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for. Raises Permanent when it cannot be done."""
    getall = getattr(query, "getall", None)
    ids = [str(value) for value in (getall("id", []) if getall is not None else query.get("id", []))]
    action = str(query.get("action", ""))
    if action not in ACTIONS:
        raise Permanent("choose what to do")
    if not ids:
        raise Permanent("choose at least one message")
    return {"action": action, "label": ACTIONS[action], "ids": ids, "final": action in ("bounce", "rm")}


async def suppressions(found: Queue, query: Mapping[str, Any]) -> dict[str, Any]:
    """The list, or the entries of one address."""
    address = str(query.get("address", "")).strip().lower()
    entries = []
    async for entry in found.suppressions(address=address):
        entries.append(entry)
        if len(entries) == MOST_SUPPRESSED:
            break
    return {"entries": entries, "address": address, "cut": len(entries) == MOST_SUPPRESSED, "removed": str(query.get("removed", ""))}


async def suppressed(found: Queue, query: Mapping[str, Any]) -> Suppressed:
    """The one entry that is meant. Raises Permanent when there is none."""
    scope, owner, address = (str(query.get(name, "")) for name in ("scope", "owner", "address"))
    if address:
        async for entry in found.suppressions(scope=scope, owner=owner, address=address):
            if (entry.scope, entry.owner, entry.address) == (scope, owner, address):
                return entry
    raise Permanent(f"{address or 'this address'} is not on the list")


async def domains(found: Queue, known: Mapping[str, Sequence[DomainRecord]], now: int) -> dict[str, Any]:
    """Every domain with its last day."""
    by_name = {row["values"][0]: row for row in await counted(found, now - 24 * HOUR_MS, now + 1, ["domain"], {})}
    return {"domains": [(name, _counts(by_name[name]) if name in by_name else None) for name in sorted(known)]}


async def domain(found: Queue, name: str, now: int) -> dict[str, Any]:
    """One domain: its last day by class and by credential."""
    since, where = now - 24 * HOUR_MS, {"domain": name}
    credentials = await counted(found, since, now + 1, ["credential"], where)
    campaigns = await counted(found, since, now + 1, ["campaign"], where)
    return {
        "name": name,
        "causes": _causes(await counted(found, since, now + 1, ["class"], where)),
        "credentials": [(row["values"][0], _counts(row), row["latencies"].get("delivery")) for row in credentials],
        "campaigns": [(row["values"][0], _counts(row)) for row in campaigns if row["values"][0]],
        "webhooks": await found.webhooks(name),
        "curbs": [curb for curb in await found.curbs() if curb["name"].split("/")[1:2] == [name]],
    }


async def destinations(found: Queue, now: int) -> dict[str, Any]:
    """What waits for whom, and how the last day went there."""
    stats = await found.stats()
    by_destination = [row for row in await counted(found, now - 24 * HOUR_MS, now + 1, ["destination"], {}) if row["values"][0]]
    day = [(row["values"][0], _counts(row), row["latencies"].get("delivery")) for row in by_destination[:ROWS]]
    return {"waiting": stats["destinations"], "day": day, "bar": plots.bar, "top": max((counts["delivered"] for _, counts, _ in day), default=0)}


async def destination(found: Queue, name: str, now: int) -> dict[str, Any]:
    """One destination: what waits, limits in force, what goes wrong there."""
    stats = await found.stats()
    where, since = {"destination": name}, now - 24 * HOUR_MS
    hour = now - now % HOUR_MS
    hours = [hour - HOUR_MS * back for back in range(23, -1, -1)]
    # A message is accepted once for all of its destinations, so it is counted under none.
    day = _series(await counted(found, hours[0], now + 1, ["hour"], where), hours, [kind for kind in PLOTTED if kind != "accepted"])
    whole = await counted(found, since, now + 1, [], where)
    return {
        "name": name,
        "waiting": [row for row in stats["destinations"] if row["destination"] == name],
        "total": _counts(whole[0]) if whole else None,
        "latencies": whole[0]["latencies"] if whole else {},
        "day": plots.lines("Last 24 hours, per hour", day, [when(at)[11:16] for at in hours]),
        "causes": _causes(await counted(found, since, now + 1, ["class"], where)),
    }
