"""What the commands share: the data folder, --json, and how errors end a command."""

import asyncio
import os
import socket
import sys
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import click

from postroom_cli import show
from postroom_cli.cluster import Installation
from postroom_cli.layout import Layout
from postroom_core.errors import Permanent, Unavailable
from postroom_core.settings import data_dir, split_list

T = TypeVar("T")
as_json = click.option("--json", "json_", is_flag=True, help="For scripts: JSON on standard output.")


def layout() -> Layout:
    """Of POSTROOM_DATA_DIR."""
    return Layout(data_dir(os.environ))


def place() -> Layout | Installation:
    """Where the commands that ask a running Postroom find it: `kubectl postroom` named a cluster, `postroom` is about this machine."""
    context = click.get_current_context(silent=True)
    return (context and context.find_object(Installation)) or layout()


def guarded(group: click.Group) -> None:
    """Runs a command. Errors become one line and an exit code; a traceback would be a defect."""
    try:
        group()
    except Permanent as error:
        show.problem(str(error))
        sys.exit(2)
    except (Unavailable, OSError) as error:
        show.problem(str(error))
        sys.exit(3)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's work in an event loop; errors reach `guarded`."""
    return asyncio.run(work)


def own_name(environment: Mapping[str, str]) -> str:
    """POSTROOM_HOSTNAME, or the machine's full name: what EHLO says."""
    return (environment.get("POSTROOM_HOSTNAME") or socket.getfqdn()).lower().rstrip(".")


def resolvers(environment: Mapping[str, str]) -> tuple[str, ...]:
    """POSTROOM_RESOLVERS as a tuple."""
    found: tuple[str, ...] = split_list(environment.get("POSTROOM_RESOLVERS", ""))
    return found
