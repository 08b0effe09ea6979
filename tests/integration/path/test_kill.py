"""P1 and P2 on the whole product: kill -9 of every service at any moment loses nothing that was accepted."""

import random
import shutil
import smtplib
import subprocess
import threading
import time

import pytest

from postroom_core.testing.sink import Received

from integration.path.running import SERVICES, Machine, machine

# Starts processes and waits for their restarts: longer than other tests on a busy machine.
pytestmark = pytest.mark.timeout(180)
KILLS = 9
CLIENTS = 4
# A start takes seconds on a busy machine; without progress for this long something is broken.
PROGRESS_SECONDS = 60.0


def _client(running: Machine, number: int, stop: threading.Event, accepted: list[str]) -> None:
    """Sends until told to stop; notes the subjects that got 250."""
    count = 0
    while not stop.is_set():
        try:
            with smtplib.SMTP("127.0.0.1", running.ports["relay"], timeout=20) as client:
                client.ehlo("client.test")
                for _ in range(20):
                    count += 1
                    subject = f"{number}-{count}"
                    content = f"From: a@d.example\r\nTo: b@x.example\r\nSubject: {subject}\r\n\r\nbody\r\n".encode()
                    client.mail("a@d.example")
                    client.rcpt(f"b@x{number}.example")
                    if client.data(content)[0] == 250:
                        accepted.append(subject)
        except (OSError, smtplib.SMTPException):
            stop.wait(0.1)  # a killed service: come back, as any client does


def _subject(message: Received) -> str:
    return next(line[9:].decode() for line in message.content.split(b"\r\n") if line.startswith(b"Subject: "))


def test_kill_9_of_every_service_under_load_loses_nothing() -> None:
    with machine() as running:
        stop, accepted = threading.Event(), list[list[str]]()
        clients = []
        for number in range(CLIENTS):
            accepted.append([])
            clients.append(threading.Thread(target=_client, args=(running, number, stop, accepted[number])))
        for client in clients:
            client.start()
        kills, chance = 0, random.Random(4)
        while kills < KILLS:
            # By accepted messages, not by time: however slow the machine, every kill meets a service at work.
            wanted_count = sum(map(len, accepted)) + chance.randint(2, 20)
            end = time.monotonic() + PROGRESS_SECONDS
            while sum(map(len, accepted)) < wanted_count and time.monotonic() < end:
                stop.wait(0.01)
            assert sum(map(len, accepted)) >= wanted_count, f"nothing was accepted for {PROGRESS_SECONDS:.0f} s after kill {kills}"
            try:
                running.kill(SERVICES[kills % 3])
                kills += 1
            except (LookupError, ProcessLookupError):
                continue  # it is being started again
        stop.set()
        for client in clients:
            client.join(60)
        wanted = {subject for subjects in accepted for subject in subjects}
        messages = running.world.wait_for(lambda found: wanted <= {_subject(message) for message in found}, 90)
        running.postroom("queue", "wait-empty", "--timeout", "60")
        arrived = [_subject(message) for message in running.world.sink.messages]
        lost, copies = wanted - set(arrived), len(arrived) - len(set(arrived))
        print(f"{kills} kills, {len(wanted)} accepted, {len(lost)} lost, {copies} second copies")
        assert not lost
        # A kill of delivery may repeat what every one of its connections had in doubt at that moment, and nothing else.
        assert copies <= kills * 10 * CLIENTS
        assert all(b"\r\nDKIM-Signature: " in message.content or message.content.startswith(b"DKIM-Signature: ") for message in messages)


def test_the_sync_comes_before_the_250() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with machine() as running:
        trace = running.folder / "trace"
        pids = [part for service in ("ingress", "delivery") for part in ("-p", str(running.pid(service)))]
        with subprocess.Popen(
            ["strace", "-f", "-tt", "-e", "trace=fsync,fdatasync,write,writev,sendto,sendmsg", "-s", "80", "-o", str(trace), *pids],
            stderr=subprocess.PIPE,
        ) as strace:
            assert strace.stderr is not None
            for line in strace.stderr:
                if b"attached" in line:
                    break
            with smtplib.SMTP("127.0.0.1", running.ports["relay"], timeout=30) as client:
                client.ehlo("client.test")
                client.mail("a@d.example")
                client.rcpt("b@x.example")
                assert client.data(b"From: a@d.example\r\n\r\nbody\r\n")[0] == 250
            strace.terminate()
        lines = trace.read_text().splitlines()
        (answered,) = [number for number, line in enumerate(lines) if "queued as" in line]
        began = next(number for number, line in enumerate(lines) if "354 End data" in line)
        assert any("sync(" in line for line in lines[began:answered]), "no fsync or fdatasync between 354 and 250"
