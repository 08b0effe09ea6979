"""What the commands share: the data folder, --json, and how errors end a command."""

import asyncio
import os
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import click

from postroom_cli.layout import Layout
from postroom_core.settings import data_dir, split_list

T = TypeVar("T")
as_json = click.option("--json", "json_", is_flag=True, help="For scripts: JSON on standard output.")


def layout() -> Layout:
    """Of POSTROOM_DATA_DIR."""
    return Layout(data_dir(os.environ))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's work in an event loop; errors reach postroom_cli.__main__."""
    return asyncio.run(work)


def resolvers(environment: Mapping[str, str]) -> tuple[str, ...]:
    """POSTROOM_RESOLVERS as a tuple."""
    found: tuple[str, ...] = split_list(environment.get("POSTROOM_RESOLVERS", ""))
    return found
