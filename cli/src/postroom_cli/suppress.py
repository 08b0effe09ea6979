"""The suppression list: suppress ls, add, rm, import, export."""

import csv
import dataclasses
import datetime
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TextIO

import click
from rich.table import Table

from postroom_cli import show
from postroom_cli.clients import Suppressed, connected
from postroom_cli.command import as_json, place, run
from postroom_core.errors import Permanent

# What delivery reads of a report.
MOST_REPORT = 512 * 1024
_FIELDS = ("address", "scope", "owner", "reason", "evidence", "created", "expires")


@click.group()
def suppress() -> None:
    """Look at and change the list of addresses that get no mail."""


def _scope(tenant: str, domain: str) -> tuple[str, str]:
    if tenant and domain:
        raise click.UsageError("name a tenant or a domain, not both")
    return ("tenant", tenant) if tenant else ("domain", domain) if domain else ("global", "")


async def _all(**which: str) -> list[Suppressed]:
    async with connected(place()) as client:
        return [entry async for entry in client.suppressions(**which)]


async def _change(entries: list[Suppressed], *, remove: bool = False) -> int:
    async with connected(place()) as client:
        return await client.change_suppressions(entries, remove=remove)


@suppress.command("ls")
@click.argument("address", default="")
@click.option("--tenant", default="", help="Only entries of this tenant.")
@click.option("--domain", default="", help="Only entries of this MailDomain's domain.")
@as_json
def list_(address: str, tenant: str, domain: str, json_: bool) -> None:
    """Entries, oldest first; with ADDRESS only those about it."""
    scope, owner = _scope(tenant, domain) if tenant or domain else ("", "")
    entries = run(_all(scope=scope, owner=owner, address=address))
    if json_:
        _write_json(entries, sys.stdout)
        return
    table = Table("address", "scope", "reason", "since", "until", "evidence")
    for entry in entries:
        until = show.when(entry.expires_at) if entry.expires_at else "for ever"
        table.add_row(entry.address, f"{entry.scope} {entry.owner}".strip(), entry.reason, show.when(entry.created_at), until, entry.evidence)
    show.out.print(table if entries else "no entries")


@suppress.command("add")
@click.argument("addresses", nargs=-1, required=True)
@click.option("--tenant", default="", help="For mail of this tenant only.")
@click.option("--domain", default="", help="For mail of this MailDomain's domain only; without both for all mail.")
@click.option("--reason", default="manual", show_default=True)
@click.option("--days", default=0, type=click.IntRange(0, 36_500), help="How long; 0 is for ever.")
@as_json
def add(addresses: tuple[str, ...], tenant: str, domain: str, reason: str, days: int, json_: bool) -> None:
    """Stop mail to ADDRESSES. An entry that lasts longer already stays."""
    scope, owner = _scope(tenant, domain)
    now = datetime.datetime.now(datetime.UTC)
    expires = _ms(now + datetime.timedelta(days=days)) if days else 0
    _told(run(_change([Suppressed(address, scope, owner, reason, "", _ms(now), expires) for address in addresses])), json_)


@suppress.command("rm")
@click.argument("addresses", nargs=-1, required=True)
@click.option("--tenant", default="", help="The entry of this tenant.")
@click.option("--domain", default="", help="The entry of this MailDomain's domain; without both the global one.")
@as_json
def remove(addresses: tuple[str, ...], tenant: str, domain: str, json_: bool) -> None:
    """Let mail to ADDRESSES go again."""
    scope, owner = _scope(tenant, domain)
    changed = run(_change([Suppressed(address, scope, owner) for address in addresses], remove=True))
    _told(changed, json_)
    if not changed:
        raise SystemExit(1)


@suppress.command("export")
@click.option("--format", "format_", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
def export(format_: str) -> None:
    """All entries on standard output; JSON is one object a line."""
    out = sys.stdout
    entries = run(_all())
    if format_ == "json":
        _write_json(entries, out)
        return
    writer = csv.DictWriter(out, _FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(entry) for entry in entries)


@suppress.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--format", "format_", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@as_json
def import_(file: TextIO, format_: str, json_: bool) -> None:
    """Entries from FILE (- is standard input), as export writes them. Only the column address is needed."""
    rows = _json_rows(file) if format_ == "json" else csv.DictReader(file)
    entries = [_entry(line, row) for line, row in enumerate(rows, 1 if format_ == "json" else 2)]
    _told(run(_change(entries)), json_)


@suppress.command("report")
@click.argument("file", type=click.File("rb"), default="-")
@as_json
def report(file: BinaryIO, json_: bool) -> None:
    """Take in a bounce or complaint that came back, from FILE or standard input; exit code 1 when it is about no message that is known."""
    content = file.read(MOST_REPORT)

    async def tell() -> dict[str, Any]:
        async with connected(place()) as client:
            return await client.report(content)

    found = run(tell())
    if json_:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        about = f"{found['kind']} {' '.join(found['addresses'])}".strip()
        show.out.print(f"{about}: {found['text']}" if about else found["text"], markup=False)
    if not found["kind"]:
        raise SystemExit(1)


def _json_rows(file: Iterable[str]) -> Iterator[Any]:
    for line, text in enumerate(file, 1):
        try:
            yield json.loads(text)
        except ValueError as error:
            raise Permanent(f"line {line}: not JSON: {error}") from None


def _entry(line: int, row: Any) -> Suppressed:
    if not isinstance(row, dict) or "@" not in str(row.get("address") or ""):
        raise Permanent(f"line {line}: no address")
    owner = str(row.get("owner") or "")
    scope = str(row.get("scope") or "global")
    if scope not in ("global", "tenant", "domain") or (scope == "global") != (not owner):
        raise Permanent(f"line {line}: the scope is global without owner, or tenant or domain with one")
    created, expires = (_time(line, row.get(name)) for name in ("created", "expires"))
    return Suppressed(str(row["address"]), scope, owner, str(row.get("reason") or "imported"), str(row.get("evidence") or ""), created, expires)


def _time(line: int, value: Any) -> int:
    if not value:
        return 0
    try:
        found = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        raise Permanent(f"line {line}: {value} is not a time such as 2026-11-24T12:00:00+00:00") from None
    return _ms(found if found.tzinfo else found.replace(tzinfo=datetime.UTC))


def _ms(time: datetime.datetime) -> int:
    return int(time.timestamp() * 1000)


def _plain(entry: Suppressed) -> dict[str, str]:
    values = dataclasses.asdict(entry)
    for name in ("created", "expires"):
        at = values.pop(f"{name}_at")
        values[name] = datetime.datetime.fromtimestamp(at / 1000, datetime.UTC).isoformat() if at else ""
    return values


def _write_json(entries: Iterable[Suppressed], out: TextIO) -> None:
    for entry in entries:
        out.write(json.dumps(_plain(entry), ensure_ascii=False) + "\n")


def _told(changed: int, json_: bool) -> None:
    click.echo(json.dumps({"changed": changed})) if json_ else show.out.print(f"{changed} entries changed")
