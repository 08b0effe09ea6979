"""`kubectl postroom`: the commands against an installation in a cluster, by kubeconfig. kubectl finds it as a program named kubectl-postroom."""

import json

import click
from rich.table import Table

from postroom_cli import show
from postroom_cli.cluster import Installation
from postroom_cli.command import as_json, guarded, run
from postroom_cli.hooks import webhooks
from postroom_cli.queue import events, explain, queue
from postroom_cli.senders import senders
from postroom_cli.statistics import stats
from postroom_core.errors import Permanent


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="postroom-cli", prog_name="kubectl postroom")
@click.option("--context", default="", help="Of the kubeconfig; default: the current one.")
@click.option("-n", "--namespace", default="", help="Where Postroom is installed; default: found by its label, if you may see all namespaces.")
@click.option("--pool", default="", help="The delivery to ask, as the label mail.postroom.dev/pool says; needed when there are several.")
@click.pass_context
def cli(context: click.Context, /, **named: str) -> None:
    """Postroom in a Kubernetes cluster: the queue, the story of a message, the records to publish."""
    context.obj = Installation(**named)


@cli.command()
@click.argument("domain")
@as_json
@click.pass_obj
def dns(installation: Installation, domain: str, json_: bool) -> None:
    """Records to publish for DOMAIN, and whether its servers show them. Exit code 1 when one is missing."""
    wanted = domain.lower().rstrip(".")
    found = [md for md in run(installation.get("maildomains.mail.postroom.dev")) if md["spec"]["domainName"] == wanted]
    if not found:
        raise Permanent(f"there is no MailDomain for {wanted} that you may see")
    records = found[0].get("status", {}).get("dnsRecords", [])
    if json_:
        click.echo(json.dumps({"domain": wanted, "records": records}))
    else:
        table = Table("record", "type", "seen", "servers")
        for record in records:
            servers = f"{record.get('authoritativeAgree', 0)} of {record.get('authoritativeTotal', 0)}"
            table.add_row(record["name"], record["type"], record.get("visible", "Unknown"), servers)
        show.out.print(table if records else "the operator has not said yet which records are needed")
        for record in records:
            show.out.print(show.zone_line(record["name"], record["type"], record["value"]), markup=False, soft_wrap=True)
    if not records or any(record.get("visible") != "True" for record in records):
        raise SystemExit(1)


for command in (queue, explain, events, stats, senders, webhooks):
    cli.add_command(command)


def main() -> None:
    """As the command postroom: errors are one line and an exit code."""
    guarded(cli)


if __name__ == "__main__":
    main()
