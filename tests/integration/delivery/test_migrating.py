"""Old and new code on one PostgreSQL while the new one migrates it: both go on, nothing is lost, nothing is delivered twice."""

import asyncio
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
from typing import Any

import asyncpg
import pytest

from contract.postgres import Server

ROOT = pathlib.Path(__file__).parents[3]
MIGRATIONS = "services/delivery/src/postroom_delivery/spool/migrations/postgres"
SOURCES = ("services/core/src", "services/delivery/src", "protos/gen")
ROUNDS = 15


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout


def old_code(folder: pathlib.Path, migration: str) -> str:
    """The Python path of the code as it was before a migration came; skips where the history does not say."""
    try:
        commit = git("log", "-1", "--diff-filter=A", "--format=%H", "--", f"{MIGRATIONS}/{migration}").decode().strip()
        content = git("archive", f"{commit}^", "services", "protos")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the history of the code")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return os.pathsep.join(str(folder / source) for source in SOURCES)


class Traffic:
    """A process of either version at work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, url: str, name: str, path: str) -> "Traffic":
        program = str(pathlib.Path(__file__).with_name("spool_traffic.py"))
        pipe = asyncio.subprocess.PIPE
        environment = os.environ | {"PYTHONPATH": path}
        return cls(await asyncio.create_subprocess_exec(sys.executable, program, url, name, stdin=pipe, stdout=pipe, env=environment, limit=1 << 20))

    async def rounds(self, count: int) -> None:
        """Until it has delivered so many times more."""
        assert self._process.stdout is not None
        for _ in range(count):
            line = await self._process.stdout.readline()
            assert line.strip().isdigit(), line

    async def end(self) -> dict[str, Any]:
        """Its accounts."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        out, _ = await self._process.communicate()
        assert self._process.returncode == 0
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


@pytest.mark.parametrize("migration", ["0007_lists.sql", "0010_suspended_tenants.sql"])
def test_both_versions_go_on_while_the_new_one_migrates(postgres_server: Server, tmp_path: pathlib.Path, migration: str) -> None:
    url, path = postgres_server.database(), old_code(tmp_path, migration)
    new_path = os.pathsep.join(str(ROOT / source) for source in SOURCES)

    async def scenario() -> None:
        old = await Traffic.start(url, "old", path)
        await old.rounds(ROUNDS)
        connection = await asyncpg.connect(url)
        before = await connection.fetchval("SELECT max(number) FROM schema_step")
        new = await Traffic.start(url, "new", new_path)
        await asyncio.gather(new.rounds(ROUNDS), old.rounds(ROUNDS))
        after = await connection.fetchval("SELECT max(number) FROM schema_step")
        await connection.close()
        assert before == int(migration[:4]) - 1 < after
        accounts = [await old.end(), await new.end()]
        accepted = [one for account in accounts for one in account["accepted"]]
        delivered = [one for account in accounts for one in account["delivered"]]
        assert sorted(delivered) == sorted(set(delivered)) == sorted(accepted)
        assert all(len(account["refused"]) <= len(account["accepted"]) / 10 for account in accounts), [a["refused"][:3] for a in accounts]

    asyncio.run(asyncio.wait_for(scenario(), 110))
