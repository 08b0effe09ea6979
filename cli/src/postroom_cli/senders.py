"""`postroom senders`: credentials, domains and tenants that are alerted about, slowed down or paused, and letting them go on."""

import json
from typing import Any

import click
from rich.table import Table

from postroom_cli import show
from postroom_cli.clients import connected
from postroom_cli.command import as_json, place, run

HOUR_MS = 3_600_000


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def senders(context: click.Context, json_: bool) -> None:
    """Senders that something is known against, with the numbers. Exit code 1 when one is slowed down or paused."""
    if context.invoked_subcommand is not None:
        return

    async def ask() -> list[dict[str, Any]]:
        async with connected(place()) as client:
            return await client.curbs()

    found = run(ask())
    if json_:
        click.echo(json.dumps(found))
    else:
        show.out.print(_table(found) if found else "nothing is known against any sender")
    if any(curb["level"] in ("slow", "pause") for curb in found):
        raise SystemExit(1)


@senders.command()
@click.argument("name")
@click.option("--hours", default=4, show_default=True, type=click.IntRange(0, 168), help="How long it is not judged again.")
def resume(name: str, hours: int) -> None:
    """Let the sender NAME go on, such as credential:default/example.com/app."""

    async def ask() -> None:
        async with connected(place()) as client:
            await client.resume(name, hours * HOUR_MS)

    run(ask())
    show.out.print(f"{name} may send again", markup=False)


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table("sender", "level", "since", "until", "why")
    for curb in found:
        until = show.when(curb["until_ms"]) if curb["level"] != "none" else ""
        pace = f"; {curb['pace']} messages an hour" if curb["level"] == "slow" else ""
        table.add_row(curb["name"], curb["level"], show.when(curb["since_ms"]), until, f"{curb['text']}{pace}")
    return table
