"""`postroom up`: everything on one machine. Plans and publishes, starts the services, says `ready`, watches, drains.

Standard output gets exactly one line, `ready` (with --json an object); everything for people goes to standard error.
"""

import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import pathlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
import structlog

from postroom_cli import front, page, show
from postroom_cli.layout import MOST_SOCKET_PATH, Layout
from postroom_cli.sinkhole import Sinkhole
from postroom_cli.store import write
from postroom_cli.world import World
from postroom_core import http
from postroom_core.errors import Permanent
from postroom_core.lifecycle import Stopping, supervised
from postroom_core.supervise import Child
from postroom_web.app import install
from postroom_web.login import Role

log = structlog.get_logger(__name__)
PORTS = {"submission": 2587, "tls": 2465, "relay": 2525, "http": 2580}
START_SECONDS = 60.0  # a cold start on a slow disk takes 5 s; something is wrong after a minute
FILES_SECONDS = 0.5  # a change is in force within 2 s: this, and the services' own half second
DNS_FIRST_SECONDS, DNS_LONGEST_SECONDS = 2.0, 30.0
SERVICES = ("signer", "delivery", "ingress")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the environment say. `servers` are the DNS resolvers, empty is the system's."""

    path: pathlib.Path
    layout: Layout
    listen: str
    ports: Mapping[str, int]
    own_name: str
    json: bool
    sink: bool
    environment: Mapping[str, str] = field(repr=False)
    servers: tuple[str, ...] = ()


class Up:
    """One run. Raises Permanent with one sentence when it cannot start."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._world = World(options.layout, options.path, options.own_name)
        self._children: dict[str, Child] = {}

    async def run(self, stopping: Stopping) -> None:
        """Until asked to stop and drained."""
        options = self._options
        with _locked(options.layout):
            _check_ports(options)
            _check_sockets(options.layout)
            plan = await asyncio.to_thread(self._world.apply)
            if plan.problems:
                raise Permanent("\n".join(plan.problems))
            write(options.layout.root / "resources", str(options.path.absolute()), 0o600)
            async with contextlib.AsyncExitStack() as stack:
                servers, environment = options.servers, dict(options.environment)
                if options.sink:
                    sinkhole = await stack.enter_async_context(Sinkhole(options.layout.sink).serving())
                    sinkhole.publish(self._world.plan)
                    servers = sinkhole.servers
                    environment |= sinkhole.environment()
                    if await self._world.activate_published(servers):  # the stand-in world sees them at once
                        await asyncio.to_thread(self._world.apply)
                await stack.enter_async_context(self._front(servers))
                await self._serve(stopping, servers, environment)

    @contextlib.asynccontextmanager
    async def _front(self, servers: tuple[str, ...]) -> AsyncIterator[None]:
        """The HTTP port: the page, metrics of all services, health, readiness."""
        options = self._options
        app = front.application({name: options.layout.http(name) for name in SERVICES}, options.layout.http("api"))
        install(app, page.page(page.Checks(options.layout, options.own_name, servers), lambda: self._world.plan.records))
        async with http.serve(f"{options.listen}:{options.ports['http']}", app):
            yield

    async def _serve(self, stopping: Stopping, servers: tuple[str, ...], environment: dict[str, str]) -> None:
        self._children = {name: Child(f"postroom_{name}", self._environment(name, environment)) for name in SERVICES}
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(child.run()) for child in self._children.values()]
                running.append(group.create_task(supervised("files", self._watch_files)))
                running.append(group.create_task(supervised("dns", lambda: self._watch_dns(servers))))
                if await self._until_ready(stopping):
                    self._announce()
                    await stopping.wait()
                await self._drain()
                for task in running:
                    task.cancel()
        except* Permanent as group_error:
            raise Permanent(str(group_error.exceptions[0])) from None
        finally:
            self._options.layout.running.unlink(missing_ok=True)
            for child in self._children.values():
                child.kill()

    async def _drain(self) -> None:
        """Ingress first, so that nothing new comes; the signer last, because ingress needs it to finish."""
        show.note("stopping: finishing what is being received and sent …")
        for name in ("ingress", "delivery", "signer"):
            await self._children[name].stop()

    def _environment(self, name: str, environment: Mapping[str, str]) -> dict[str, str]:
        options, layout = self._options, self._options.layout
        common = {"DIRECTORY": str(layout.directory(name)), "HOSTNAME": options.own_name, "HTTP": f"unix:{layout.http(name)}"}
        own = {
            "signer": {"LISTEN": f"unix:{layout.socket('signer')}"},
            "delivery": {
                "LISTEN": f"unix:{layout.socket('delivery')}",
                "SIGNER_TARGET": f"unix:{layout.socket('signer')}",
                **(
                    {}
                    if environment.get("POSTROOM_SPOOL_URL") or environment.get("POSTROOM_SPOOL_URL_FILE")
                    else {"SPOOL_URL": f"sqlite://{layout.spool}"}
                ),
            },
            "ingress": {
                "SIGNER_TARGET": f"unix:{layout.socket('signer')}",
                "DELIVERY_TARGET": f"unix:{layout.socket('delivery')}",
                "LISTEN_HTTP": f"unix:{layout.http('api')}",
                **{f"LISTEN_{port.upper()}": f"{options.listen}:{options.ports[port]}" for port in ("submission", "tls", "relay")},
            },
        }[name]
        return {**environment, **{f"POSTROOM_{key}": value for key, value in (common | own).items()}}

    # Readiness

    async def _until_ready(self, stopping: Stopping) -> bool:
        """Whether all services became ready before the stop. Raises Permanent after START_SECONDS."""
        try:
            async with asyncio.timeout(START_SECONDS):
                for name in SERVICES:
                    while not stopping.requested and not await front.is_ready(self._options.layout.http(name)):
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise Permanent(f"the services were not ready within {START_SECONDS:.0f} s, see their log above") from None
        return not stopping.requested

    def _announce(self) -> None:
        options, plan = self._options, self._world.plan
        generated = self._generated()
        credentials = [
            {"domain": domain, "username": username, **({"password": generated[username]} if username in generated else {})}
            for domain, username, _ in plan.credentials
        ]
        ready: dict[str, Any] = {"event": "ready", "listen": options.listen, "ports": dict(options.ports), "credentials": credentials}
        token = page.tokens(options.layout)[Role.OPERATOR]
        ready["page"] = {"url": f"http://{options.listen}:{options.ports['http']}/", "token": token}
        write(options.layout.running, json.dumps(ready | {"logins": self._world.logins()}), 0o600)
        show.welcome(options.listen, options.ports, credentials, plan)
        if not _is_loopback(options.listen):
            show.warning(f"the page at {options.listen} has no TLS, and its token would cross the network in clear: put a proxy with TLS in front")
        show.note(f"the page is at {ready['page']['url']}, its token is {token}")
        show.publish_these(plan, self._world.waiting_keys())
        click.echo(json.dumps(ready) if options.json else "ready")

    def _generated(self) -> dict[str, str]:
        return {username: password for username, password, generated in self._world.logins_with_origin() if generated}

    # Watching

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(FILES_SECONDS)
            if self._world.files_changed():
                plan = await asyncio.to_thread(self._world.apply)
                show.applied(plan)

    async def _watch_dns(self, servers: tuple[str, ...]) -> None:
        """Looks for the records of generated keys until all are seen."""
        pause = DNS_FIRST_SECONDS
        while True:
            seen = await self._world.activate_published(servers) if self._world.waiting_keys() else []
            for key in seen:
                show.note(f"DKIM key {key.selector} of {key.domain} is published: {key.domain} is signed with it from now on")
            if seen:
                await asyncio.to_thread(self._world.apply)
                pause = DNS_FIRST_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, DNS_LONGEST_SECONDS)


@contextlib.contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """The data folder for this run alone. Raises Permanent when it cannot be written or is in use."""
    try:
        layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout.running.parent.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(layout.root / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Permanent(f"the data folder {layout.root} cannot be written ({error.strerror}); set POSTROOM_DATA_DIR to one that can") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Permanent(
            f"another postroom up runs with the data folder {layout.root}; stop it, or set POSTROOM_DATA_DIR to another folder"
        ) from error
    finally:
        os.close(descriptor)


def _is_loopback(listen: str) -> bool:
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:  # a name
        return listen == "localhost"


def _check_ports(options: Options) -> None:
    """Says which port is taken before anything starts."""
    family = socket.AF_INET6 if ":" in options.listen else socket.AF_INET
    for name, port in options.ports.items():
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.listen, port))
            except OSError as error:
                raise Permanent(
                    f"cannot listen on {options.listen}:{port} ({name}): {error.strerror}; choose another by --ports {name}=PORT"
                ) from error


def _check_sockets(layout: Layout) -> None:
    longest = max(len(str(layout.http(name))) for name in SERVICES)
    if longest > MOST_SOCKET_PATH:
        raise Permanent(f"the path of the data folder {layout.root} is too long for sockets; set POSTROOM_DATA_DIR to a shorter one")
