"""The entry of the command `postroom`: commands, exit codes, errors as one line.

Exit codes: 0 done; 1 the answer is no (a record is missing, a message failed); 2 wrong use or configuration; 3 no instance answers.
"""

import asyncio
import os
import pathlib
import socket
import sys
import tempfile

import click

from postroom_cli import examples, show, up
from postroom_cli.checking import check
from postroom_cli.command import as_json, layout
from postroom_cli.publication import dns
from postroom_cli.queue import events, explain, queue, stats
from postroom_cli.send import send
from postroom_core import lifecycle, logs
from postroom_core.errors import Permanent, Unavailable
from postroom_core.settings import NOT_YET, unknown_names


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="postroom-cli", prog_name="postroom")
def cli() -> None:
    """Postroom: mail for applications, accepted durably, signed, delivered."""


def _ports(_: click.Context, __: click.Parameter, value: str) -> dict[str, int]:
    chosen = dict(up.PORTS)
    for part in value.split(",") if value else []:
        name, separator, port = part.partition("=")
        if name not in chosen or not separator or not port.isdigit() or not 0 < int(port) < 65536:
            raise click.BadParameter(f"{part!r} is not NAME=PORT with a name of {', '.join(chosen)}")
        chosen[name] = int(port)
    return chosen


@cli.command("up")
@click.argument("path", required=False, type=click.Path(path_type=pathlib.Path))
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address of all ports.")
@click.option("--ports", callback=_ports, default="", help="submission=…,tls=…,relay=…,http=…; default 2587, 2465, 2525, 2580.")
@click.option("--sink", is_flag=True, help="Deliver to a built-in receiving server and show what arrives; nothing leaves the machine.")
@as_json
def up_command(path: pathlib.Path | None, listen: str, ports: dict[str, int], sink: bool, json_: bool) -> None:
    """Run everything on this machine from the resources in PATH, a file or a folder."""
    if path is None and not sink:
        raise click.UsageError("name a file or a folder with resources; postroom init writes a first one, --sink works without")
    logs.configure("up", "info")
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = pathlib.Path(folder) / "mail.yaml"
            path.write_text(examples.text("sink.example"))
        options = up.Options(
            path=path,
            layout=layout(),
            listen=listen,
            ports=ports,
            own_name=os.environ.get("POSTROOM_HOSTNAME", socket.getfqdn()).lower(),
            json=json_,
            sink=sink,
            environment=dict(os.environ),
            servers=up.resolvers(os.environ),
        )
        lifecycle.run(up.Up(options).run)


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


for command in (check, dns, send, queue, explain, events, stats):
    cli.add_command(command)


def main() -> None:
    """Errors become one line and an exit code; a traceback would be a defect."""
    if unknown := unknown_names(os.environ):
        show.problem("\n".join(f"{name} is not a setting of Postroom; is it misspelt?" for name in unknown))
        sys.exit(2)
    for name in NOT_YET & os.environ.keys():
        show.warning(f"{name} is set, and the part that it is for is not built yet: it has no effect")
    try:
        cli()
    except Permanent as error:
        show.problem(str(error))
        sys.exit(2)
    except (Unavailable, OSError) as error:
        show.problem(str(error))
        sys.exit(3)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


if __name__ == "__main__":
    main()
