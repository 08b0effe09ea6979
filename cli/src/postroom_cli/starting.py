"""The command `postroom up`: reads its options, hands them to `up`."""

import os
import pathlib
import tempfile

import click

from postroom_cli import examples, up
from postroom_cli.command import as_json, layout, own_name, resolvers
from postroom_core import lifecycle, logs


def _ports(_: click.Context, __: click.Parameter, value: str) -> dict[str, int]:
    chosen = dict(up.PORTS)
    for part in value.split(",") if value else []:
        name, separator, port = part.partition("=")
        if name not in chosen or not separator or not port.isdigit() or not 0 < int(port) < 65536:
            raise click.BadParameter(f"{part!r} is not NAME=PORT with a name of {', '.join(chosen)}")
        chosen[name] = int(port)
    return chosen


@click.command("up")
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
            own_name=own_name(os.environ),
            json=json_,
            sink=sink,
            environment=dict(os.environ),
            servers=resolvers(os.environ),
        )
        lifecycle.run(up.Up(options).run)
