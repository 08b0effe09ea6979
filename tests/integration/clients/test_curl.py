"""curl: STARTTLS and implicit TLS with a verified certificate, its own choice of mechanism and each of ours that it has."""

import io

import pycurl
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


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_it_delivers_with_each_mechanism(postroom: Postroom, mechanism: str) -> None:
    recipient = new_recipient()
    send(postroom, recipient, implicit=True, options=("--login-options", f"AUTH={mechanism}"))
    postroom.arrival(recipient)


@pytest.mark.parametrize("implicit", [False, True])
def test_dsn_parameters_arrive(postroom: Postroom, implicit: bool) -> None:
    """By the library, because a wheel brings it along; it sends parameters behind an address since 8.16, which few systems have."""
    recipient = new_recipient()
    client = pycurl.Curl()
    client.setopt(client.URL, f"smtps://{HOST}:{postroom.tls}" if implicit else f"smtp://{HOST}:{postroom.submission}")
    client.setopt(client.USE_SSL, client.USESSL_ALL)
    client.setopt(client.CAINFO, str(postroom.ca))
    client.setopt(client.USERPWD, f"{USERNAME}:{PASSWORD}")
    client.setopt(client.MAIL_FROM, f"<{SENDER}> RET=HDRS ENVID={ENVID}")
    client.setopt(client.MAIL_RCPT, [f"<{recipient}> NOTIFY={NOTIFY} ORCPT={ORCPT}"])
    client.setopt(client.UPLOAD, True)
    client.setopt(client.READDATA, io.BytesIO(content(recipient)))
    client.perform()
    client.close()
    dsn_arrived_unchanged(postroom.arrival(recipient))
