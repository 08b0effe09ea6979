"""curl: STARTTLS and implicit TLS with a verified certificate, its own choice of mechanism and each of ours that it has."""

import re

import pytest

from integration.clients.postroom import (
    BODY,
    ENVID,
    HOST,
    NOTIFY,
    ORCPT,
    PASSWORD,
    SENDER,
    USERNAME,
    Postroom,
    content,
    dsn_arrived_unchanged,
    new_recipient,
    run,
    tool,
)


def send(postroom: Postroom, recipient: str, *, implicit: bool, options: tuple[str, ...] = (), suffixes: tuple[str, str] = ("", "")) -> None:
    url = f"smtps://{HOST}:{postroom.tls}" if implicit else f"smtp://{HOST}:{postroom.submission}"
    run(
        *(tool("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", str(postroom.ca), "--user", f"{USERNAME}:{PASSWORD}", *options),
        *("--mail-from", SENDER + suffixes[0], "--mail-rcpt", recipient + suffixes[1], "--upload-file", "-", url),
        stdin=content(recipient),
    )


@pytest.mark.parametrize("implicit", [False, True])
def test_it_delivers_with_its_own_choice_of_mechanism(postroom: Postroom, implicit: bool) -> None:
    recipient = new_recipient()
    send(postroom, recipient, implicit=implicit)
    assert postroom.arrival(recipient).content.endswith(BODY)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
def test_it_delivers_with_each_mechanism(postroom: Postroom, mechanism: str) -> None:
    if mechanism.startswith("SCRAM") and "gsasl" not in run(tool("curl"), "--version"):
        pytest.skip("this curl is built without SCRAM")
    recipient = new_recipient()
    send(postroom, recipient, implicit=True, options=("--login-options", f"AUTH={mechanism}"))
    postroom.arrival(recipient)


def test_dsn_parameters_arrive(postroom: Postroom) -> None:
    version = re.match(r"curl (\d+)\.(\d+)", run(tool("curl"), "--version"))
    assert version is not None
    if (int(version[1]), int(version[2])) < (8, 16):
        pytest.skip("curl sends parameters behind an address since 8.16 only")
    recipient = new_recipient()
    send(postroom, recipient, implicit=True, suffixes=(f" RET=HDRS ENVID={ENVID}", f" NOTIFY={NOTIFY} ORCPT={ORCPT}"))
    dsn_arrived_unchanged(postroom.arrival(recipient))
