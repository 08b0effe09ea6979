"""The entry of the command `postroom`: commands, exit codes, errors as one line.

Exit codes: 0 done; 1 the answer is no (a record is missing, a message failed); 2 wrong use or configuration; 3 no instance answers.
"""

import importlib
import os
import pathlib
import sys

import click

from postroom_cli import examples, show
from postroom_cli.command import guarded
from postroom_core.errors import Permanent
from postroom_core.settings import unknown_names

# Where each command is. Loaded when it is asked for: what `up` needs takes a second to import, and `explain` should not wait for it.
_COMMANDS = {
    "check": "checking",
    "dns": "publication",
    "events": "queue",
    "explain": "queue",
    "queue": "queue",
    "send": "send",
    "senders": "senders",
    "stats": "statistics",
    "suppress": "suppress",
    "up": "starting",
    "webhooks": "hooks",
}


class Commands(click.Group):
    """Commands by name, imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"postroom_cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, "up_command" if cmd_name == "up" else cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="postroom-cli", prog_name="postroom")
def cli() -> None:
    """Postroom: mail for applications, accepted durably, signed, delivered."""


@cli.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=pathlib.Path))
@click.option("--domain", default="example.com", show_default=True, help="The domain that sends.")
def init(folder: pathlib.Path, domain: str) -> None:
    """Write a first MailDomain and SendingPool to FOLDER/mail.yaml."""
    file = folder / "mail.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("x") as opened:
            opened.write(examples.text(domain.lower()))
    except FileExistsError:
        raise Permanent(f"{file} exists already and is left as it is") from None
    except OSError as error:
        raise Permanent(f"{file} cannot be written: {error.strerror}") from error
    show.out.print(f"wrote {file}; start it with: postroom up {file}", markup=False)


def main() -> None:
    """Refuses settings that nobody knows, and runs the command."""
    if unknown := unknown_names(os.environ):
        show.problem("\n".join(f"{name} is not a setting of Postroom; is it misspelt?" for name in unknown))
        sys.exit(2)
    guarded(cli)


if __name__ == "__main__":
    main()
