"""`postroom up --sink` as a newcomer uses it: the real command, the real services, the built-in world; every command of the CLI once."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

# Each command is a process that starts anew: seconds on a busy machine.
pytestmark = pytest.mark.timeout(240)
POSTROOM = pathlib.Path(sys.executable).with_name("postroom")
NAMES = ("submission", "tls", "relay", "http")


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that OTLP exporters send."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.spans += [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@dataclass
class Machine:
    """A running instance; `postroom` runs another command against it."""

    environment: dict[str, str]
    ready: dict[str, Any]
    process: subprocess.Popen[str]
    collector: Collector

    def postroom(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run([POSTROOM, *arguments], env=self.environment, capture_output=True, text=True, timeout=50)
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stdout + done.stderr


def free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in NAMES]
        return {name: found.getsockname()[1] for name, found in zip(NAMES, sockets, strict=True)}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ports = free_ports()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "POSTROOM_DATA_DIR": f"{folder}/data",
            "POSTROOM_HOSTNAME": "mta.sink.example",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        command = [str(POSTROOM), "up", "--sink", "--json", "--ports", ",".join(f"{name}={number}" for name, number in ports.items())]
        with open(f"{folder}/log", "w") as log, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, pathlib.Path(f"{folder}/log").read_text()
            yield Machine(environment, json.loads(line), process, collector)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    server.stop(None)


def test_a_message_by_postroom_send_is_signed_delivered_explained_and_traced(machine: Machine) -> None:
    events = [json.loads(line) for line in machine.postroom("send", "--from", "a@sink.example", "--to", "b@x.example", "--json").splitlines()]
    assert [event["kind"] for event in events] == ["accepted", "delivered"]
    message_id = events[0]["message_id"]

    story = machine.postroom("explain", message_id)
    assert "was accepted" in story
    assert "was delivered to <b@x.example> (attempt 1)" in story

    (stored,) = (pathlib.Path(machine.environment["POSTROOM_DATA_DIR"]) / "sink").glob("*.eml")
    content = stored.read_bytes()
    assert [tag for tag in (b"a=rsa-sha256", b"a=ed25519-sha256") if tag in content] == [b"a=rsa-sha256", b"a=ed25519-sha256"]
    assert re.search(rb"with ESMTPSA tls \S+\r\n\tid " + message_id.encode(), content)

    machine.postroom("queue", "wait-empty", "--json")
    assert json.loads(machine.postroom("stats", "--json"))["recipients"]["delivered"] == 1
    assert message_id in machine.postroom("queue", "ls", "--state", "delivered", "--json")
    assert "postroom_ingress_messages_total" in _get(machine, "/metrics")
    assert _get(machine, "/readyz") == "ok\n"
    _wait_for_spans(machine.collector, 2)
    spans = {span.name: span for span in machine.collector.spans}
    assert spans["attempt"].trace_id == spans["reception"].trace_id


def _wait_for_spans(collector: Collector, count: int) -> None:
    import time

    end = time.monotonic() + 10
    while len(collector.spans) < count and time.monotonic() < end:
        time.sleep(0.05)  # the exporter of another process: there is no event to wait for


def _get(machine: Machine, path: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{machine.ready['ports']['http']}{path}", timeout=10) as response:
        return str(response.read().decode())


def test_the_generated_password_is_shown_once_and_kept_for_the_owner_only(machine: Machine) -> None:
    (credential,) = machine.ready["credentials"]
    assert len(credential["password"]) >= 24
    data = pathlib.Path(machine.environment["POSTROOM_DATA_DIR"])
    modes = {path.name: path.stat().st_mode & 0o777 for path in data.rglob("*") if path.is_file()}
    assert not {name: oct(mode) for name, mode in modes.items() if mode & 0o077 and ".eml" not in name}
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in data.glob("keys/*/*.pem"))


def test_dns_shows_the_records_and_exits_with_1_while_they_are_not_seen(machine: Machine) -> None:
    output = machine.postroom("dns", "sink.example", "--json", status=1)
    records = json.loads(output)["records"]
    assert {record["purpose"] for record in records} == {"DKIM RSA2048", "DKIM Ed25519", "DMARC"}


def test_a_second_up_with_the_same_data_folder_is_one_clear_line(machine: Machine) -> None:
    output = machine.postroom("up", "--sink", status=2)
    assert "another postroom up runs with the data folder" in output
    assert "Traceback" not in output


def test_an_unknown_message_is_one_clear_line(machine: Machine) -> None:
    assert "no message 01M86SWK2QP69ZZ8FXM8G2T3Q0" in machine.postroom("explain", "01M86SWK2QP69ZZ8FXM8G2T3Q0", status=2)


def test_check_sees_the_real_keys_and_that_the_real_listeners_refuse_strangers(machine: Machine) -> None:
    import asyncio

    from postroom_core.testing.dns import DnsServer

    async def main() -> dict[str, Any]:
        async with DnsServer() as dns:
            for record in json.loads(machine.postroom("dns", "sink.example", "--json", status=1))["records"]:
                value = record["value"]
                dns.set(record["name"], record["type"], [" ".join(f'"{value[at : at + 255]}"' for at in range(0, len(value), 255))])
            dns.set("sink.example", "TXT", ['"v=spf1 ip4:192.0.2.7 -all"'])
            command = [
                str(POSTROOM),
                "check",
                "sink.example",
                "--json",
                "--egress",
                "192.0.2.7",
                "--dnsbl",
                "bl.example",
                "--relay-source",
                "127.0.0.9",
            ]
            environment = {**machine.environment, "POSTROOM_RESOLVERS": dns.target}
            process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
            output, _ = await process.communicate()
            return {**json.loads(output), "status": process.returncode}

    found = asyncio.run(main())
    grades = {(finding["check"], finding["subject"].split(":")[0]): finding["grade"] for finding in found["findings"]}
    assert found["status"] == 1 and not found["ok"]  # there is no PTR
    assert (grades["spf", "192.0.2.7"], grades["ptr", "192.0.2.7"], grades["relay", "127.0.0.1"]) == ("pass", "fail", "pass")
    assert [finding["grade"] for finding in found["findings"] if finding["check"] == "dkim"] == ["pass", "pass"]
    assert sum(finding["check"] == "relay" for finding in found["findings"]) == 2


def test_a_reply_in_quotes_is_explained_without_a_message(machine: Machine) -> None:
    told = machine.postroom("explain", "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus.")
    assert told.startswith("Blocklisted address: ")
    assert "what to do: Find the cause first" in told
    assert json.loads(machine.postroom("explain", "535 5.7.8 Authentication failed", "--json"))["explanation"]["name"] == "submission-authentication"


def test_stats_by_group_count_what_was_sent_as_table_json_and_csv(machine: Machine) -> None:
    import time

    machine.postroom("send", "--from", "a@sink.example", "--to", "b@counted.example")
    end = time.monotonic() + 20
    arguments = ("stats", "--by", "destination", "--where", "domain=sink.example")
    while not (found := [row for row in json.loads(machine.postroom(*arguments, "--json")) if row["destination"] == "counted.example"]):
        assert time.monotonic() < end, "the roll-up comes within seconds"
    assert (found[0]["delivered"], found[0]["bounced"]) == (1, 0)
    assert found[0]["delivery_p95_ms"] > 0
    assert "counted.example,0,1," in machine.postroom(*arguments, "--csv")
    assert "counted.example" in machine.postroom(*arguments)
    assert "'moon' is no group" in machine.postroom("stats", "--by", "moon", status=2)


def test_webhooks_and_senders_are_shown(machine: Machine) -> None:
    assert machine.postroom("webhooks").strip() == "no webhooks"
    assert machine.postroom("senders").strip() == "nothing is known against any sender"
    assert "nothing is known against tenant:x" in machine.postroom("senders", "resume", "tenant:x", status=2)
