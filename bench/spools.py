"""A spool of each engine with a backlog in it, and delivery processes on it. Used by long_queue.py, fairness.py and simulate.py.

Rows go straight into the spool's tables, many in one statement: by the front door a million messages would take an hour. What the engines
themselves keep up to date by triggers and indexes is kept up to date here too.
"""

import asyncio
import contextlib
import os
import pathlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import psutil

from postroom.v1 import spool_pb2, spool_pb2_grpc
from postroom_core import rpc
from postroom_core.directory import publish
from postroom_core.documents import Pool
from postroom_core.ids import new_message_id
from postroom_core.testing.dns import DnsServer
from postroom_core.testing.sink import Sink
from postroom_delivery.spool.model import Limits, NewMessage, NewRecipient
from postroom_delivery.spool.opening import open_spool

from contract.postgres import Server

POOL = "default/main"
HEADERS = b"From: a@d.example\r\nTo: b@x.example\r\nSubject: one of many\r\n" + b"X-Padding: " + b"x" * 400 + b"\r\n"
BODY = (b"x" * 70 + b"\r\n") * 14
DAY_MS = 86_400_000
# So many rows go in one statement: seconds of work, and few enough for the numbers of events within a transaction.
CHUNK = 100_000
# The times of a backlog begin a minute ago, so that everything is due.
BEFORE_MS = 60_000
_SERIES = "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
_STATEMENTS = (
    "INSERT INTO message (id, tenant, pool, domain, credential, reverse_path, body_size, size, eight_bit, ret, envid, client_address, traceparent,"
    " received_at, expires_at, open_recipients, headers, smtputf8, require_tls, tls_optional, binary_mime, hold_until, deliver_by, deliver_by_return,"
    " priority) SELECT {id}, '{tenant}', '{pool}', 'd.example', 'bench', '{sender}', {body_size}, {size}, false, '', '', '', '', {now},"
    " {now} + 432000000, 1, {headers}, false, false, false, false, 0, 0, false, 0 FROM n",
    "INSERT INTO body (message, sequence, data) SELECT {id}, 0, {body} FROM n",
    "INSERT INTO recipient (message, address, domain, pool, destination, tenant, priority, state, due_at, notify, orcpt)"
    " SELECT {id}, 'b' || i || '@{prefix}' || (i % {places}) || '.example', '{prefix}' || (i % {places}) || '.example', '{pool}',"
    " 'mx:{prefix}' || (i % {places}) || '.test', '{tenant}', 0, 'scheduled', {now}, '', '' FROM n",
    "INSERT INTO event (number, at, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt)"
    " SELECT {number}, {now}, {id}, '', 'accepted', 0, '', 'from inside by bench', '', '', '', 0 FROM n",
)
_PLACES = (
    "INSERT INTO lane (pool, destination, tenant, next_due) SELECT '{pool}', 'mx:{prefix}' || i || '.test', '{tenant}', {now} FROM n"
    " WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO destination (pool, name, next_at, suspended) SELECT '{pool}', 'mx:{prefix}' || i || '.test', {now}, {suspended} FROM n"
    " WHERE true ON CONFLICT DO NOTHING",
)


@dataclass(frozen=True)
class Group:
    """`rows` due messages of a tenant, spread over `places` destinations mx:PREFIXn.test with recipients at PREFIXn.example."""

    rows: int
    prefix: str = "d"
    places: int = 1
    tenant: str = "default"
    sender: str = "a@d.example"
    suspended: bool = False


class Store:
    """One spool, filled once. `url` names it; `remove` ends what was started for it."""

    url: str
    _id: str
    _number: str
    _blob: str

    def __init__(self) -> None:
        self._filled = 0

    async def fill(self, groups: Sequence[Group]) -> float:
        """Seconds that it took."""
        async with open_spool(lambda: self.url, "bench", _now(), lambda _: Limits(1, None, 1)) as spool:
            await spool.renew(_now())  # makes the schema, and with PostgreSQL the partition of the day
        began = time.monotonic()
        await self._run([statement for group in groups for statement in self._statements(group)])
        return time.monotonic() - began

    def _statements(self, group: Group) -> list[str]:
        now = _now() - BEFORE_MS
        common = {
            **{"pool": POOL, "tenant": group.tenant, "prefix": group.prefix, "places": group.places, "sender": group.sender, "now": now},
            **{"body_size": len(BODY), "size": len(HEADERS) + 2 + len(BODY), "id": self._id, "number": self._number},
            **{"headers": self._blob.format(HEADERS.hex()), "body": self._blob.format(BODY.hex()), "suspended": str(group.suspended).lower()},
        }
        found = []
        for first in range(0, group.rows, CHUNK):
            last = min(first + CHUNK, group.rows) - 1
            series = _SERIES.format(first=self._filled + first, last=self._filled + last)
            found += [series + statement.format(**common) for statement in _STATEMENTS]
        self._filled += group.rows
        series = _SERIES.format(first=0, last=group.places - 1)
        return found + [series + statement.format(**common) for statement in _PLACES]

    async def _run(self, statements: list[str]) -> None:
        raise NotImplementedError

    def size(self) -> int:
        """Octets on the disk."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Of the database's first process, when there is one."""
        return []

    def remove(self) -> None:
        """What it needed is gone but for its folder."""


class SqliteStore(Store):
    """A file in the folder."""

    _id, _number, _blob = "printf('%026d', i)", "NULL", "x'{}'"

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self._path = folder / "spool.sqlite3"
        self.url = f"sqlite://{self._path}"

    async def _run(self, statements: list[str]) -> None:
        await asyncio.to_thread(self._insert, statements)

    def _insert(self, statements: list[str]) -> None:
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -524288"):
                connection.execute(f"PRAGMA {pragma}")
            for statement in statements:
                connection.execute(statement)

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._path.parent.glob(f"{self._path.name}*"))


class PostgresStore(Store):
    """A server of its own, with the tests' settings (fsync on) but for its memory."""

    _id, _number = "lpad(i::text, 26, '0')", "(pg_current_xact_id()::text::bigint << 20) | (i % 1000000)"
    _blob = "'\\x{}'::bytea"

    def __init__(self, connections: int = 100) -> None:
        super().__init__()
        self.server = Server(shared_buffers="256MB", max_wal_size="8GB", max_connections=connections)
        self.url = self.server.database()

    async def _run(self, statements: list[str]) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute("SET synchronous_commit = off")
        for statement in statements:
            await connection.execute(statement)
        # What autovacuum would do within minutes, so that a measurement does not run into it.
        for statement in ("VACUUM ANALYZE message", "VACUUM ANALYZE recipient", "VACUUM ANALYZE body", "VACUUM tally_difference", "CHECKPOINT"):
            await connection.execute(statement)
        await connection.close()

    def size(self) -> int:
        return int(self.server.sql("SELECT pg_database_size(current_database())", self.url))

    def pids(self) -> list[int]:
        return [self.server.pid]

    def remove(self) -> None:
        self.server.remove()


def store(engine: str, folder: pathlib.Path) -> Store:
    """`sqlite` or `postgres`."""
    return PostgresStore() if engine == "postgres" else SqliteStore(folder)


@dataclass
class World:
    """A name server and a sink, both in this process, and the delivery process with the folder of `postroom up`, so that commands find it."""

    folder: pathlib.Path
    store: Store
    dns: DnsServer
    sink: Sink
    process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"unix:{self.folder}/run/delivery.sock"

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")} | {
            "POSTROOM_DIRECTORY": str(self.folder / "directory"),
            "POSTROOM_HOSTNAME": "mta.d.example",
            "POSTROOM_SPOOL_URL": self.store.url,
            "POSTROOM_LISTEN": self.target,
            "POSTROOM_RESOLVERS": self.dns.target,
            "POSTROOM_REMOTE_SMTP_PORT": str(self.sink.port),
            "POSTROOM_ALLOWED_MX_NETWORKS": "127.0.0.0/8",
            "POSTROOM_LOG_LEVEL": "warning",
        }

    def start(self) -> None:
        """The delivery process; it serves some seconds later."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "postroom_delivery"], env=self.environment, stdout=log, stderr=log)

    def pids(self) -> list[int]:
        """The delivery process, and the database's first."""
        return [*([self.process.pid] if self.process is not None else []), *self.store.pids()]

    def resident(self) -> int:
        """Octets of memory of the delivery process."""
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def names(self, group: Group) -> None:
        """MX and address records of a group's domains."""
        for number in range(group.places):
            self.dns.set(f"{group.prefix}{number}.example", "MX", [f"10 {group.prefix}{number}.test."], ttl=86_400)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None


@contextlib.asynccontextmanager
async def world(folder: pathlib.Path, filled: Store, pool: Pool, sink: Sink) -> AsyncIterator[World]:
    """Everything but the delivery process, which `start` starts."""
    (folder / "run").mkdir()
    publish(folder / "directory", [pool], "1")
    async with DnsServer() as dns, sink:
        dns.set("*", "A", ["127.0.0.1"], ttl=86_400)
        made = World(folder, filled, dns, sink)
        try:
            yield made
        finally:
            await asyncio.to_thread(made.stop)


def envelope(address: str, tenant: str = "default") -> spool_pb2.EnqueueChunk:
    """One message as ingress hands it over."""
    now = _now()
    who: dict[str, Any] = {"tenant": tenant, "pool": POOL, "domain": "d.example", "credential": "bench", "reverse_path": "a@d.example"}
    recipients = [spool_pb2.Recipient(address=address)]
    made = spool_pb2.Envelope(message_id=new_message_id(now), recipients=recipients, received_at_ms=now, **who)
    end = spool_pb2.End(header_block=HEADERS, body_size=len(BODY), eight_bit=False)
    return spool_pb2.EnqueueChunk(envelope=made, body=BODY, end=end)


def message(domain: str, destination: str, tenant: str = "default", body_size: int = 1000) -> NewMessage:
    """One message for an engine; the body comes with the accept."""
    now = _now()
    return NewMessage(
        id=new_message_id(now),
        tenant=tenant,
        pool=POOL,
        domain="d.example",
        credential="bench",
        reverse_path="a@d.example",
        recipients=(NewRecipient(f"b@{domain}", destination),),
        headers=b"From: a@d.example\r\n",
        body_size=body_size,
        eight_bit=False,
        received_at=now,
        expires_at=now + DAY_MS,
    )


async def enqueue(target: str, owed: Callable[[], int], address: Callable[[], str], until: float, tenant: str = "default") -> list[float]:
    """Hands over as many messages as `owed` says, at most 20 at once, until the monotonic time `until`; the seconds of each call, then the messages.

    Raises RuntimeError when one is refused.
    """
    seconds: list[float] = []
    async with rpc.connect(target) as channel:
        stub = spool_pb2_grpc.SpoolStub(channel)
        while (now := time.monotonic()) < until:
            count = min(20, owed())
            if not count:
                await asyncio.sleep(0.002)
                continue
            request = spool_pb2.EnqueueBatchRequest(messages=[envelope(address(), tenant) for _ in range(count)])
            response = await stub.EnqueueBatch(request, timeout=30)
            refused = [one.refused for one in response.responses if not one.HasField("accepted")]
            if refused:
                raise RuntimeError(f"a message was refused: {refused[0]}")
            seconds += [time.monotonic() - now] * count
    return seconds


def _now() -> int:
    return time.time_ns() // 1_000_000
