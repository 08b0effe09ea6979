"""msmtp, what many machines use as sendmail: STARTTLS and implicit TLS, every mechanism, DSN parameters."""

import pathlib

import pytest

from integration.clients.postroom import BODY, HOST, PASSWORD, SENDER, USERNAME, Postroom, content, new_recipient, run, tool


def configuration(postroom: Postroom, folder: pathlib.Path, *, implicit: bool, mechanism: str) -> pathlib.Path:
    path = folder / "msmtprc"
    path.write_text(
        f"account default\nhost {HOST}\nport {postroom.tls if implicit else postroom.submission}\nfrom {SENDER}\n"
        f"tls on\ntls_starttls {'off' if implicit else 'on'}\ntls_trust_file {postroom.ca}\n"
        f"auth {mechanism}\nuser {USERNAME}\npassword {PASSWORD}\ndsn_notify failure,delay,success\ndsn_return headers\n"
    )
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(("mechanism", "implicit"), [("on", False), ("plain", True), ("login", True), ("scram-sha-256", True)])
def test_it_delivers_and_dsn_parameters_arrive(postroom: Postroom, tmp_path: pathlib.Path, mechanism: str, implicit: bool) -> None:
    msmtp = tool("msmtp")
    recipient = new_recipient()
    path = configuration(postroom, tmp_path, implicit=implicit, mechanism=mechanism)
    run(msmtp, "-C", path, recipient, stdin=content(recipient).replace(b"\r\n", b"\n"))
    message = postroom.arrival(recipient)
    assert message.content.endswith(BODY)
    assert message.mail_parameters["RET"] == "HDRS"
    (parameters,) = message.rcpt_parameters
    assert set(parameters["NOTIFY"].split(",")) == {"FAILURE", "DELAY", "SUCCESS"}
