"""P9 for one message: 50 MiB pass through all three services without any of them holding the message."""

import smtplib
import time

import psutil
import pytest

from integration.path.running import SERVICES, machine

# Starts processes and waits for their restarts: longer than other tests on a busy machine.
pytestmark = pytest.mark.timeout(180)
MIB = 1024 * 1024
# Buffers of one connection, chunks on the way, and SQLite's page cache of 64 MiB in delivery: less than two copies of the message would need.
MOST_GROWTH = {"ingress": 24 * MIB, "signer": 8 * MIB, "delivery": 80 * MIB}


def test_fifty_mebibytes_arrive_unchanged_and_memory_stays_bounded() -> None:
    body = (b"x" * 76 + b"\r\n") * (50 * MIB // 78)
    with machine() as running:
        running.submit(b"From: a@d.example\r\nSubject: warm\r\n\r\nwarm\r\n")
        running.world.wait_for(lambda found: len(found) == 1)
        processes = {name: psutil.Process(running.pid(name)) for name in SERVICES}
        before = {name: process.memory_info().rss for name, process in processes.items()}
        running.submit(b"From: a@d.example\r\nSubject: large\r\n\r\n" + body)
        messages = running.world.wait_for(lambda found: len(found) == 2)
        growth = {name: process.memory_info().rss - before[name] for name, process in processes.items()}
        print({name: f"{octets / MIB:.0f} MiB" for name, octets in growth.items()})
        assert messages[-1].content.endswith(b"\r\n\r\n" + body)
        assert {name: octets for name, octets in growth.items() if octets > MOST_GROWTH[name]} == {}


def test_an_edit_is_in_force_within_two_seconds_without_a_restart() -> None:
    with machine() as running:
        file = running.folder / "mail.yaml"
        began = time.monotonic()
        file.write_text(file.read_text().replace("domainName: d.example", "domainName: d.example\n  sendingState: Paused"))
        reply = (250, b"")
        while reply[0] == 250 and time.monotonic() - began < 5:
            reply = _mail(running.ports["relay"])
        assert reply[0] == 450
        assert time.monotonic() - began < 2


def _mail(port: int) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.ehlo("client.test")
        return client.mail("a@d.example")
