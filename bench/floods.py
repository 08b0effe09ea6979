"""Whether clients that hold places and drip disturb those that send: the whole product, 300 idle and 50 dripping connections, a load beside them.

Prints figures, and ends with 1 when a message of the load was refused, a reply took longer than 2 s, or ingress grew by more than 100 MiB.

    uv run python bench/floods.py [--seconds 30]
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import select
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

IDLE, DRIPPING, WORKERS = 300, 50, 4
MOST_SECONDS, MOST_GROWTH = 2.0, 100 * 1024 * 1024
BODY = b"From: a@sink.example\r\nSubject: load\r\n\r\n" + (b"x" * 70 + b"\r\n") * 50


@dataclass
class Load:
    """What the senders saw."""

    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@contextlib.contextmanager
def product(folder: pathlib.Path, ports: dict[str, int]) -> Iterator[dict[str, str]]:
    """`postroom up --sink`; user name and password of its credential."""
    environment = {**os.environ, "POSTROOM_DATA_DIR": str(folder), "POSTROOM_LOG_LEVEL": "warning"}
    chosen = ",".join(f"{name}={port}" for name, port in ports.items())
    process = subprocess.Popen(
        [sys.executable, "-m", "postroom_cli", "up", "--sink", "--json", "--ports", chosen],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        credential = ready["credentials"][0]
        yield {"username": credential["username"], "password": credential["password"], "pid": str(process.pid)}
    finally:
        process.terminate()
        process.wait(90)


def free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in ("submission", "tls", "relay", "http")}
        return {name: made.getsockname()[1] for name, made in sockets.items()}


def hold(port: int) -> list[socket.socket]:
    """Connections that are greeted and then say nothing."""
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(IDLE)]
    for connection in held:
        connection.recv(200)
    return held


def drip(port: int, stop: threading.Event) -> None:
    """Connections that send one octet of a command every second, and come back when they are cut."""
    dripping: list[socket.socket] = []
    while not stop.wait(1.0):
        dripping += [socket.create_connection(("127.0.0.1", port)) for _ in range(DRIPPING - len(dripping))]
        for connection in list(dripping):
            try:
                connection.sendall(b"E")
                if select.select([connection], [], [], 0)[0] and not connection.recv(500):
                    raise OSError("cut")
            except OSError:
                dripping.remove(connection)
    for connection in dripping:
        connection.close()


def send(port: int, login: dict[str, str], stop: threading.Event, load: Load) -> None:
    """Messages one after the other, a new connection for every tenth."""
    context = ssl._create_unverified_context()
    while not stop.is_set():
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                for number in range(10):
                    began = time.monotonic()
                    if number == 0:
                        client.starttls(context=context)
                        token = base64.b64encode(f"\0{login['username']}\0{login['password']}".encode()).decode()
                        client.ehlo()
                        client.docmd("AUTH", f"PLAIN {token}")
                    client.sendmail("a@sink.example", [f"b{number}@x.example"], BODY)
                    load.seconds.append(time.monotonic() - began)
                    if stop.is_set():
                        break
        except (OSError, smtplib.SMTPException) as error:
            load.faults.append(repr(error))


def ingress_of(pid: int) -> psutil.Process:
    return next(child for child in psutil.Process(pid).children(recursive=True) if "postroom_ingress" in child.cmdline())


def main() -> int:
    """0 when nothing was disturbed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds: float = parser.parse_args().seconds
    ports, stop, load = free_ports(), threading.Event(), Load()
    with tempfile.TemporaryDirectory(prefix="floods-") as folder, product(pathlib.Path(folder), ports) as login:
        ingress = ingress_of(int(login["pid"]))
        before = ingress.memory_info().rss
        held = hold(ports["submission"])
        threads = [threading.Thread(target=drip, args=(ports["submission"], stop))]
        threads += [threading.Thread(target=send, args=(ports["submission"], login, stop, load)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        most, ends = before, time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(0.5)
            most = max(most, ingress.memory_info().rss)
        stop.set()
        for thread in threads:
            thread.join()
        for connection in held:
            connection.close()
    slowest = max(load.seconds, default=0.0)
    rate = len(load.seconds) / seconds
    print(
        f"{IDLE} idle, {DRIPPING} dripping, {WORKERS} senders, {seconds:.0f} s: {len(load.seconds)} messages, {rate:.0f}/s, {len(load.faults)} faults"
    )
    print(f"slowest message {slowest:.2f} s (dialogue and reply), growth of ingress {(most - before) / 1048576:.0f} MiB")
    for fault in load.faults[:5]:
        print(fault)
    return 0 if load.seconds and not load.faults and slowest <= MOST_SECONDS and most - before <= MOST_GROWTH else 1


if __name__ == "__main__":
    raise SystemExit(main())
