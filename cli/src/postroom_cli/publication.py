"""`postroom dns`: the records to publish for a domain, and whether the world sees them."""

import asyncio
import json
import os
import pathlib
from collections.abc import Sequence

import click
from rich.table import Table

from postroom_cli import show
from postroom_cli.command import as_json, layout, own_name, resolvers, run
from postroom_cli.store import Store
from postroom_cli.world import looked_up
from postroom_core.errors import Permanent
from postroom_operator import resources
from postroom_operator.plan.compile import compile_resources
from postroom_operator.plan.dns import DnsRecord


@click.command()
@click.argument("domain")
@click.option("--from", "path", type=click.Path(path_type=pathlib.Path), help="The resources; default: those of the last postroom up.")
@as_json
def dns(domain: str, path: pathlib.Path | None, json_: bool) -> None:
    """Records to publish for DOMAIN, and whether the world sees them. Exit code 1 when a required one is missing."""
    records = _records(domain.lower().rstrip("."), path)
    visible = run(_look(records, resolvers(os.environ)))
    if json_:
        found = [
            {"name": r.name, "type": r.type, "value": r.value, "required": r.required, "purpose": r.purpose, "visible": seen}
            for r, seen in zip(records, visible, strict=True)
        ]
        click.echo(json.dumps({"domain": domain, "records": found}))
    else:
        table = Table("record", "type", "needed", "seen", "purpose")
        for record, seen in zip(records, visible, strict=True):
            table.add_row(
                record.name, record.type, "yes" if record.required else "advised", "[green]yes[/]" if seen else "[red]no[/]", record.purpose
            )
        show.out.print(table)
        for record in records:
            show.out.print(show.zone_line(record.name, record.type, record.value), markup=False, soft_wrap=True)
        show.out.print("SPF: add the address that mail leaves from to the domain's own SPF record; Postroom never manages that one.")
    if not all(seen for record, seen in zip(records, visible, strict=True) if record.required):
        raise SystemExit(1)


def _records(domain: str, path: pathlib.Path | None) -> Sequence[DnsRecord]:
    found = layout()
    if path is None:
        try:
            path = pathlib.Path((found.root / "resources").read_text())
        except OSError:
            raise Permanent("name the resources by --from FILE; no postroom up has run with this data folder") from None
    plan = compile_resources(resources.read(path), Store(found).observe_keys(own_name(os.environ)))
    if domain not in plan.records:
        raise Permanent("\n".join(plan.problems) or f"there is no MailDomain {domain} in {path}; there are: {', '.join(plan.records)}")
    records = plan.records[domain]
    if any(wanted == domain for wanted, _, _ in plan.wanted_keys):
        raise Permanent(f"{domain} has no DKIM keys yet; the first postroom up makes them")
    return records


async def _look(records: Sequence[DnsRecord], servers: Sequence[str]) -> list[bool]:
    async def seen(record: DnsRecord) -> bool:
        if record.type != "TXT":
            return [value.rstrip(".") for value in await looked_up(record.name, record.type, servers)] == [record.value]
        found = [value.replace(" ", "") for value in await looked_up(record.name, "TXT", servers)]
        return record.value.replace(" ", "") in found or (not record.required and any(value.startswith("v=DMARC1") for value in found))

    return list(await asyncio.gather(*(seen(record) for record in records)))
