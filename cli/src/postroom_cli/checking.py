"""`postroom check`: would the world accept this domain's mail? Gathers what is known here, lets `postroom_insight` ask, shows the findings."""

import dataclasses
import ipaddress
import json
import os
import pathlib
import socket
from collections.abc import Sequence
from itertools import groupby

import click
from rich.markup import escape
from rich.table import Table

from postroom_cli import show, targets
from postroom_cli.command import as_json, layout, resolvers, run
from postroom_core.address import is_domain
from postroom_core.errors import Permanent
from postroom_insight import blocklist
from postroom_insight import check as insight
from postroom_insight.finding import Finding, Grade
from postroom_insight.lookups import Lookups

_COLOURS = {Grade.PASS: "green", Grade.ADVICE: "yellow", Grade.FAIL: "bold red", Grade.UNKNOWN: "red", Grade.SKIPPED: "dim"}
# A message to look at is read whole; its header is what counts.
MOST_FILE = 64 * 1024 * 1024


def _addresses(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_address(value)) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("domain")
@click.option("--egress", multiple=True, callback=_addresses, help="An address that mail leaves from; default: this machine's public ones.")
@click.option("--ehlo", default="", help="The name that EHLO says; default: POSTROOM_HOSTNAME.")
@click.option("--return-path", "bounce", default="", help="Domain of the reverse-path, when it is another than DOMAIN.")
@click.option("--dnsbl", multiple=True, help=f"A blocklist to ask; default: {', '.join(blocklist.COMMON)}.")
@click.option("--message", type=click.Path(dir_okay=False, path_type=pathlib.Path), help="A message whose header is checked too.")
@click.option(
    "--relay-source", callback=lambda c, p, v: _addresses(c, p, [v])[0] if v else "", help="Address of this machine to play the stranger from."
)
@as_json
def check(domain: str, egress: tuple[str, ...], json_: bool, **more: object) -> None:
    """Would the world accept mail of DOMAIN? SPF, DKIM, DMARC, reverse DNS, blocklists, open relay. Exit code 1 when something is wrong."""
    domain = domain.lower().rstrip(".")
    if not is_domain(domain):
        raise Permanent(f"{domain!r} is not a domain name")
    target = _target(domain, egress, more)
    findings = run(insight.run(target, Lookups(resolvers(os.environ))))
    if json_:
        click.echo(json.dumps({"domain": domain, "ok": not insight.failed(findings), "findings": [finding.as_dict() for finding in findings]}))
    else:
        _show(findings)
    if insight.failed(findings):
        raise SystemExit(1)


def _target(domain: str, egress: tuple[str, ...], more: dict[str, object]) -> insight.Target:
    message, bounce, dnsbl = more["message"], str(more["bounce"]).lower(), more["dnsbl"]
    own_name = str(more["ehlo"] or os.environ.get("POSTROOM_HOSTNAME") or socket.getfqdn()).lower().rstrip(".")
    known = targets.target(layout(), domain, own_name)
    return dataclasses.replace(
        known,
        egress=egress or known.egress,
        bounce=bounce if bounce != domain else "",
        blocklists=tuple(dnsbl) if isinstance(dnsbl, tuple) and dnsbl else blocklist.COMMON,
        message=_read(message) if isinstance(message, pathlib.Path) else None,
        source=str(more["relay_source"]) or None,
    )


def _read(path: pathlib.Path) -> bytes:
    try:
        if path.stat().st_size > MOST_FILE:
            raise Permanent(f"{path} is larger than {show.size(MOST_FILE)}")
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path} cannot be read: {error.strerror}") from error


def _show(findings: Sequence[Finding]) -> None:
    table = Table("", "about", "seen", "wanted", title_justify="left")
    for name, group in groupby(findings, key=lambda finding: finding.check):
        table.add_section()
        for finding in group:
            colour = _COLOURS[finding.grade]
            about = f"{name} [dim]{escape(finding.subject)}[/]"
            table.add_row(f"[{colour}]{finding.grade.value}[/]", about, escape(finding.seen), escape(finding.wanted))
    show.out.print(table)
    publish = list(dict.fromkeys(str(finding.publish) for finding in findings if finding.publish is not None))
    if publish:
        show.out.print("[bold]To publish:[/bold]")
        for line in publish:
            show.out.print(f"  {line}", markup=False, soft_wrap=True)
    counts = {grade: sum(finding.grade is grade for finding in findings) for grade in Grade}
    show.out.print(", ".join(f"{count} {grade.value}" for grade, count in counts.items() if count))
