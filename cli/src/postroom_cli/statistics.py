"""`postroom stats`: the queue in numbers, and with --by what was sent, by groups and time, as a table, JSON or CSV."""

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.table import Table

from postroom_cli import show
from postroom_cli.clients import connected
from postroom_cli.command import as_json, place, run
from postroom_core.clock import SystemClock
from postroom_core.errors import Permanent

_UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_KINDS = ("accepted", "delivered", "deferred", "bounced", "expired", "bounced-later", "complained", "suppressed")
_LATENCIES = ("first-attempt", "delivery")
_TIMES = ("hour", "minute")


def milliseconds(text: str) -> int:
    """Of 30m, 24h, 7d. Raises Permanent."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}[mhd]", text):
        raise Permanent(f"{text!r} is no time; write 30m, 24h or 7d")
    return int(text[:-1]) * _UNITS[text[-1]]


@click.command()
@click.option("--by", default="", help="Groups, in order: tenant, domain, credential, campaign, destination, pool, class, hour; or minute.")
@click.option("--since", default="24h", show_default=True, help="How far back, with --by: 30m, 24h, 7d; whole hours are counted.")
@click.option("--where", multiple=True, help="With --by: only DIMENSION=VALUE; may be repeated.")
@click.option("--csv", "csv_", is_flag=True, help="With --by: comma-separated values.")
@as_json
def stats(by: str, since: str, where: Sequence[str], csv_: bool, json_: bool) -> None:
    """The queue in numbers; with --by what was sent."""
    if by or where or csv_:
        groups = [part.strip() for part in by.split(",") if part.strip()]
        _print(_flat(groups, _ask(groups, milliseconds(since), where)), csv_=csv_, json_=json_)
        return
    _queue(json_=json_)


def _ask(groups: Sequence[str], back: int, where: Sequence[str]) -> list[dict[str, Any]]:
    pairs = [part.partition("=") for part in where]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise Permanent(f"{wrong[0]!r} is not DIMENSION=VALUE")

    async def ask() -> list[dict[str, Any]]:
        now = SystemClock().now_ms()
        async with connected(place()) as client:
            return await client.analytics(now - back, now + 1, groups, {name: value for name, _, value in pairs})

    return run(ask())


def _flat(groups: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One dictionary a row, with the same keys in each."""
    extra = sorted({kind for row in rows for kind in row["counts"]} - set(_KINDS))
    flat = []
    for row in rows:
        values = [show.when(int(value)) if group in _TIMES else value for group, value in zip(groups, row["values"], strict=True)]
        line: dict[str, Any] = dict(zip(groups, values, strict=True))
        line |= {kind: row["counts"].get(kind, 0) for kind in (*_KINDS, *extra)}
        for name in _LATENCIES:
            found = row["latencies"].get(name, {})
            line |= {f"{name}_{part}_ms": round(found.get(f"{part}_ms", 0)) for part in ("p50", "p95", "p99")}
        flat.append(line)
    return sorted(flat, key=lambda line: str(line[groups[0]])) if groups and groups[0] in _TIMES else flat


def _print(rows: Sequence[Mapping[str, Any]], *, csv_: bool, json_: bool) -> None:
    if json_:
        click.echo(json.dumps(list(rows), ensure_ascii=False))
        return
    if csv_:
        writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else ["accepted"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
        return
    if not rows:
        show.out.print("nothing was sent in this time")
        return
    _table(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Kinds that never happened are left out; the three percentiles of a latency share a column, so that a usual terminal holds the table."""
    hidden = {name for name in _KINDS if name != "delivered" and all(row[name] == 0 for row in rows)}
    plain = [name for name in rows[0] if not name.endswith("_ms") and name not in hidden]
    table = Table(*plain, *(f"{name} ms: p50 p95 p99" for name in _LATENCIES))
    for row in rows:
        latencies = [" ".join(str(row[f"{name}_{part}_ms"]) for part in ("p50", "p95", "p99")) for name in _LATENCIES]
        table.add_row(*(str(row[name]) for name in plain), *latencies)
    show.out.print(table)


def _harmless(value: Any) -> Any:
    """A campaign's name comes from applications: a spreadsheet must not take it for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def _queue(*, json_: bool) -> None:

    async def ask() -> dict[str, Any]:
        async with connected(place()) as client:
            return await client.stats() | {"webhooks": await client.webhooks(), "senders": await client.curbs()}

    found = run(ask())
    if json_:
        click.echo(json.dumps(found))
        return
    table = Table("recipients", "count")
    for state, count in sorted(found["recipients"].items()):
        table.add_row(state, str(count))
    table.add_row("due now", str(found["due"]))
    table.add_row("oldest due", f"{found['oldest_due_seconds']} s")
    table.add_row("ambiguous", str(found["in_doubt"]))
    show.out.print(table)
    if found["suspended_tenants"]:
        show.out.print(f"suspended tenants: {', '.join(found['suspended_tenants'])}", markup=False)
    if found["destinations"]:
        table = Table("pool", "destination", "scheduled", "connections", "pace", "suspended")
        for row in found["destinations"]:
            table.add_row(
                row["pool"],
                row["destination"],
                str(row["scheduled"]),
                str(row["connections"]),
                f"{row['pace']:.0%}",
                "yes" if row["suspended"] else "",
            )
        show.out.print(table)
    _warn(found)


def _warn(found: Mapping[str, Any]) -> None:
    """What asks for attention."""
    for hook in found["webhooks"]:
        if hook["health"] in ("failing", "dead"):
            show.warning(f"webhook {hook['name']} is {hook['health']}: {hook['last_text']}; see postroom webhooks")
    for curb in found["senders"]:
        if curb["level"] != "none":
            show.warning(f"{curb['name']}: {curb['level']} until {show.when(curb['until_ms'])}: {curb['text']}; see postroom senders")
