"""One run of one contender: offers messages, waits until the sink has them all, and reads what it cost. Used by run.py."""

import asyncio
import base64
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field

import dkim
import psutil
from contenders import Contender, cpu_seconds, wait_for_port
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from load import RUN_SECONDS, Load, Plan, offer

from postroom_core.testing.sink import Sink

SENDER, RECIPIENT = "a@d.example", "b@x.example"


class CountingSink:
    """smtp-sink with its counters on."""

    def __init__(self, port: int) -> None:
        self.messages = 0
        self._process = subprocess.Popen(["smtp-sink", "-c", "-u", "nobody", f"127.0.0.1:{port}", "512"], stdout=subprocess.PIPE)
        threading.Thread(target=self._count, daemon=True).start()
        wait_for_port(port)

    def _count(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while data := os.read(self._process.stdout.fileno(), 65536):
            found = re.findall(rb"mesg=(\d+)", rest + data)
            rest = data[-32:]
            if found:
                self.messages = int(found[-1])

    async def wait_for(self, count: int) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(RUN_SECONDS):
            while self.messages < count:
                await asyncio.sleep(0.002)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@dataclass(frozen=True)
class Case:
    """What is offered. With `source` Postfix's smtp-source offers it, else load.py, which also measures latencies."""

    name: str
    messages: int
    octets: int
    sessions: int = 20
    keep: bool = True
    login: bool = False
    rate: float | None = None
    source: bool = False


@dataclass
class Result:
    """The runs of one contender in one case; times in seconds, CPU in milliseconds a message, octets written a message."""

    rates: list[float] = field(default_factory=list)
    accept_rates: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    written: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def total_cpu(self) -> float:
        return sum(statistics.median(values) for values in self.cpu_ms.values())


async def one_run(contender: Contender, sink: CountingSink, case: Case, result: Result) -> None:
    """Offers the case and waits until everything has arrived. Raises RuntimeError when a message was refused, TimeoutError when one is missing."""
    groups = contender.groups()
    cpu = {name: cpu_seconds(pids) for name, pids in groups.items()}
    written = octets_written(groups)
    target, began = sink.messages + case.messages, time.monotonic()
    load = await offer_case(contender, case)
    accepted = time.monotonic()
    await sink.wait_for(target)
    result.rates.append(case.messages / (time.monotonic() - began))
    result.accept_rates.append(case.messages / (accepted - began))
    for name, pids in groups.items():
        result.cpu_ms.setdefault(name, []).append((cpu_seconds(pids) - cpu[name]) * 1000 / case.messages)
    result.written.append((octets_written(groups) - written) / case.messages)
    if load is not None:
        result.p50.append(load.percentile(50))
        result.p99.append(load.percentile(99))


async def offer_case(contender: Contender, case: Case) -> Load | None:
    """Returns when everything is accepted; what load.py saw, if it offered. Raises RuntimeError when a message was refused."""
    if case.source:
        source = ["smtp-source", "-s", str(case.sessions), "-m", str(case.messages), "-l", str(case.octets), "-f", SENDER, "-t", RECIPIENT]
        command = [*source, *(["-d"] if case.keep else []), f"127.0.0.1:{contender.port}"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=RUN_SECONDS)
        return None
    port = contender.login_port if case.login else contender.port
    login = contender.login if case.login else None
    load = await offer(Plan(port, case.messages, case.octets, case.sessions, case.keep, login, case.rate, SENDER, RECIPIENT))
    if load.errors:
        raise RuntimeError(f"{contender.name}: {len(load.errors)} messages were not accepted, the first: {load.errors[0]}")
    return load


def octets_written(groups: dict[str, list[int]]) -> int:
    """What the processes of the groups, and their living children, have given to the disk."""
    total = 0
    for pid in (pid for pids in groups.values() for pid in pids):
        try:
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                text = pathlib.Path(f"/proc/{process.pid}/io").read_text()
                total += int(re.findall(r"^write_bytes: (\d+)", text, re.MULTILINE)[0])
        except (psutil.NoSuchProcess, OSError):
            continue
    return total


def syncs(contender: Contender, offered: subprocess.Popen[bytes], messages: int) -> float | None:
    """Calls of fsync and fdatasync a message while `offered` runs, by strace; None without it."""
    if shutil.which("strace") is None:
        return None
    pids: list[int] = []
    for pid in (pid for group in contender.groups().values() for pid in group):
        pids += [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    attach = [part for pid in pids for part in ("-p", str(pid))]
    trace = subprocess.Popen(["strace", "-f", "-q", "-e", "trace=fsync,fdatasync", *attach], stderr=subprocess.PIPE)
    assert trace.stderr is not None
    offered.wait(RUN_SECONDS)
    time.sleep(2)  # until the commit of the last delivery is seen
    trace.terminate()
    return len(re.findall(rb"f(?:data)?sync\(", trace.stderr.read())) / messages


async def verify(contender: Contender, port: int, key: pathlib.Path, messages: int) -> None:
    """Sends messages through the contender to a sink that keeps them. Raises RuntimeError unless each arrived once with a valid signature."""
    async with Sink("127.0.0.1", port) as sink:
        load = await offer(Plan(contender.port, messages, 4096, 5))
        if load.errors:
            raise RuntimeError(f"{contender.name}: {load.errors[0]}")
        async with asyncio.timeout(RUN_SECONDS):
            received = list(await sink.wait_for(messages))
    contents = [message.content for message in received]
    subjects = {line for content in contents for line in content.split(b"\r\n") if line.startswith(b"Subject: ")}
    if len(subjects) != messages:
        raise RuntimeError(f"{contender.name}: {messages} messages were sent, {len(subjects)} arrived")
    record = public_record(key)
    if contender.signed and not all(dkim.verify(content, dnsfunc=lambda *_, **__: record) for content in contents):
        raise RuntimeError(f"{contender.name}: a signature does not verify")


def public_record(key: pathlib.Path) -> bytes:
    """The DKIM record of a private key file."""
    public = load_pem_private_key(key.read_bytes(), None).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
