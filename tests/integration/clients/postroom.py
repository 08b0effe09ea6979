"""What a foreign client needs to know of a running Postroom, and how its mail is found at the sink."""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Mapping

import pytest

from postroom_core.testing.sink import Received

from integration.path.running import Machine

HOST = "localhost"  # a name of the certificate, so that clients can verify it
SENDER, USERNAME, PASSWORD = "a@d.example", "u", "p"
# With what only stays whole when nobody decodes and encodes it again (RFC 3461 section 4): +2B is a plus sign in xtext.
ENVID, NOTIFY, ORCPT = "Ab+2Bc314159", "SUCCESS,FAILURE,DELAY", "rfc822;Bob+2Bx@x.example"
_NUMBERS = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Postroom:
    """The product's processes with a sink behind them."""

    machine: Machine

    @property
    def submission(self) -> int:
        """The port with STARTTLS."""
        return self.machine.ports["submission"]

    @property
    def tls(self) -> int:
        """The port with implicit TLS."""
        return self.machine.ports["tls"]

    @functools.cached_property
    def ca(self) -> pathlib.Path:
        """The listeners' certificate, which is its own authority, as a PEM file."""
        document = json.loads((self.machine.folder / "data" / "tls" / "default.json").read_text())
        path = self.machine.folder / "ca.pem"
        path.write_text(document["chain"])
        return path

    def arrival(self, recipient: str) -> Received:
        """The message to this recipient, which must be alone: signed, by an authenticated client over TLS."""
        found = self.machine.world.wait_for(lambda messages: any(recipient in message.recipients for message in messages))
        (message,) = [message for message in found if recipient in message.recipients]
        assert message.reverse_path == SENDER
        assert message.content.count(b"\r\nDKIM-Signature:") + message.content.startswith(b"DKIM-Signature:") == 2
        assert re.search(rb" with (ESMTPSA|UTF8SMTPSA) tls ", message.content)
        return message


def new_recipient() -> str:
    """An address that no other test uses."""
    return f"b{next(_NUMBERS)}@x.example"


def content(recipient: str, subject: str = "hello") -> bytes:
    """A small message with a line that begins with a dot, and eight-bit text."""
    return (
        f"From: <{SENDER}>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n.dot\r\nGrüße\r\n"
    ).encode()


BODY = "\r\n\r\n.dot\r\nGrüße\r\n".encode()


def dsn_arrived_unchanged(message: Received, *, envid: str = ENVID, orcpt: str | None = ORCPT) -> None:
    """Every DSN parameter as the client sent it; `orcpt` None where the client cannot send one."""
    assert message.mail_parameters["RET"] == "HDRS"
    assert message.mail_parameters["ENVID"] == envid
    (parameters,) = message.rcpt_parameters
    assert set(parameters["NOTIFY"].split(",")) == set(NOTIFY.split(","))
    if orcpt is not None:
        assert parameters["ORCPT"] == orcpt


def tool(name: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/go/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | pathlib.Path, stdin: bytes = b"", cwd: pathlib.Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What the program printed; fails the test with it when the program fails."""
    done = subprocess.run(command, input=stdin, cwd=cwd, env={**os.environ, **(environment or {})}, capture_output=True, timeout=50)
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, output
    return output


def build_go(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The program golang/NAME, compiled into `folder`; skips where Go or its modules are not there. Nothing is downloaded by a test."""
    go = tool("go")
    source = pathlib.Path(__file__).parent / "golang"
    built = subprocess.run(
        [go, "build", "-o", folder / name, f"./{name}"],
        cwd=source,
        env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=mod"},
        capture_output=True,
        timeout=55,
    )
    if built.returncode != 0:
        missing = built.stderr.decode("utf-8", "replace")
        assert "module lookup disabled" in missing or "requires go" in missing, missing
        pytest.skip("the Go modules of this test are not there; go mod download in tests/integration/clients/golang")
    return folder / name
