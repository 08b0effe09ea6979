"""nodemailer (JavaScript): STARTTLS and implicit TLS with a verified certificate, an attachment, DSN parameters."""

import json
import pathlib

import pytest

from integration.clients.postroom import HOST, NOTIFY, PASSWORD, SENDER, USERNAME, Postroom, dsn_arrived_unchanged, new_recipient, run, tool

FOLDER = pathlib.Path(__file__).parent / "nodemailer"


@pytest.mark.parametrize(("implicit", "method"), [(False, None), (True, "PLAIN"), (True, "LOGIN")])
def test_it_delivers_and_dsn_parameters_arrive(postroom: Postroom, implicit: bool, method: str | None) -> None:
    node = tool("node")
    if not (FOLDER / "node_modules" / "nodemailer").exists():
        pytest.skip("nodemailer is not installed; npm install in tests/integration/clients/nodemailer")
    recipient = new_recipient()
    transport = {
        **{"host": HOST, "port": postroom.tls if implicit else postroom.submission, "secure": implicit, "requireTLS": not implicit},
        **{"ca": str(postroom.ca), "auth": {"user": USERNAME, "pass": PASSWORD}, **({"authMethod": method} if method else {})},
    }
    message = {
        **{"from": SENDER, "to": recipient, "subject": "Grüße", "text": "héllo", "attachments": [{"filename": "a.txt", "content": "x" * 70_000}]},
        # nodemailer makes xtext of the id itself, and takes the address for ORCPT.
        **{"dsn": {"id": "Ab+c314159", "return": "headers", "notify": NOTIFY.lower().split(","), "recipient": "Bob+x@x.example"}},
    }
    assert "queued as" in run(node, "send.mjs", cwd=FOLDER, stdin=json.dumps({"transport": transport, "message": message}).encode())
    arrived = postroom.arrival(recipient)
    dsn_arrived_unchanged(arrived, envid="Ab+2Bc314159")
    assert len(arrived.content) > 90_000
