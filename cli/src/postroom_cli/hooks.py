"""`postroom webhooks`: who is told what happens, how far, and what they answer."""

import json
from typing import Any

import click
from rich.table import Table

from postroom_cli import show
from postroom_cli.clients import connected
from postroom_cli.command import as_json, place, run
from postroom_core.clock import SystemClock


@click.command()
@click.option("--domain", default="", help="Only those of this MailDomain's domain.")
@as_json
def webhooks(domain: str, json_: bool) -> None:
    """Webhooks, what waits for them, and what they last answered. Exit code 1 when one does not work."""

    async def ask() -> list[dict[str, Any]]:
        async with connected(place()) as client:
            return await client.webhooks(domain.lower())

    found = run(ask())
    if json_:
        click.echo(json.dumps(found))
    else:
        show.out.print(_table(found) if found else "no webhooks")
    if any(hook["health"] in ("failing", "dead") for hook in found):
        raise SystemExit(1)


def _table(found: list[dict[str, Any]]) -> Table:
    now = SystemClock().now_ms()
    table = Table("webhook", "host", "health", "waiting", "behind", "sent", "lost", "last answer")
    for hook in found:
        behind = f"{(now - hook['oldest_at_ms']) // 1000} s" if hook["oldest_at_ms"] else ""
        said = f"{show.when(hook['last_at_ms'])} {hook['last_text']}".strip()
        again = f", again at {show.when(hook['next_at_ms'])}" if hook["failures"] else ""
        table.add_row(
            hook["name"], hook["host"], hook["health"], str(hook["waiting"]), behind, str(hook["sent"]), str(hook["lost"]), f"{said}{again}"
        )
    return table
