"""What people see in a terminal: panels, tables, colours, on standard error unless a command's own output. No decisions."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pathlib

    from postroom_core.testing.sink import Received
    from postroom_operator.plan.compile import Plan
    from postroom_operator.plan.keys import StoredKey

err = Console(stderr=True, highlight=False)
# Into a pipe or a file nothing is folded to 80 columns: a name cut in two is found by no grep.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 250)


def note(text: str) -> None:
    err.print(f"[dim]postroom:[/dim] {escape(text)}", soft_wrap=True)


def problem(text: str) -> None:
    for line in text.splitlines():
        err.print(f"[bold red]postroom:[/bold red] {escape(line)}", soft_wrap=True)


def warning(text: str) -> None:
    err.print(f"[yellow]postroom:[/yellow] {escape(text)}", soft_wrap=True)


def welcome(listen: str, ports: Mapping[str, int], credentials: Sequence[Mapping[str, str]], plan: Plan) -> None:
    """Where to connect, and as whom."""
    table = Table(title="Postroom accepts mail", title_justify="left", show_header=True)
    for column in ("where", "what for"):
        table.add_column(column)
    table.add_row(f"{listen}:{ports['submission']}", "submission: STARTTLS, then AUTH")
    table.add_row(f"{listen}:{ports['tls']}", "submission: implicit TLS, AUTH")
    table.add_row(f"{listen}:{ports['relay']}", "relay: clients known by their address, or AUTH over TLS")
    table.add_row(f"http://{listen}:{ports['http']}", "the page; /metrics /healthz /readyz")
    err.print(table)
    for credential in credentials:  # lines, not a table: they are copied
        password = credential.get("password", "as in its Secret")
        err.print(f"  {credential['domain']}: user name {credential['username']}, password {password}", soft_wrap=True, markup=False)
    for text in plan.warnings:
        warning(text)


def zone_line(name: str, rdtype: str, value: str) -> str:
    """A record as a zone file has it."""
    return f'{name}. IN {rdtype} "{value}"' if rdtype == "TXT" else f"{name}. IN {rdtype} {value}."


def publish_these(plan: Plan, waiting: Sequence[StoredKey]) -> None:
    """The records that mail of a domain waits for."""
    for domain in dict.fromkeys(key.domain for key in waiting):
        warning(f"mail of {domain} is answered 451 until these records are published (postroom dns {domain} shows them again):")
        for record in plan.records[domain]:
            if record.required:
                err.print(f"  {record.name}. {record.type} {record.value}", soft_wrap=True, markup=False)


def applied(plan: Plan) -> None:
    """After a change of the files."""
    if plan.problems:
        problem("\n".join(plan.problems))
        warning("the last valid resources stay in force")
        return
    note("resources changed and are in force")
    for text in plan.warnings:
        warning(text)


def received(message: Received, subject: str, signatures: Sequence[Mapping[str, str]], path: pathlib.Path) -> None:
    """A message that arrived at the sink."""
    signed = ", ".join(f"{s.get('a', '?')} d={s.get('d', '?')} s={s.get('s', '?')}" for s in signatures) or "not signed"
    err.print(
        f"[green]arrived[/green] #{message.number} from <{escape(message.reverse_path)}> to {escape(', '.join(message.recipients))}: "
        f"{escape(subject)!r}, {len(message.content)} octets; {escape(signed)}; {escape(str(path))}",
        soft_wrap=True,
    )


def when(ms: int) -> str:
    """A time for people, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if ms else ""


def size(octets: int) -> str:
    """Octets for people."""
    return f"{octets} B" if octets < 10_000 else f"{octets / 1024:.0f} KiB" if octets < 10_000_000 else f"{octets / 1_048_576:.0f} MiB"
