"""Postfix as a client: relayhost with SASL and verified TLS, STARTTLS and implicit; what came to it with DSN parameters goes on with them."""

import contextlib
import os
import pathlib
import pwd
import shutil
import smtplib
import tempfile
from collections.abc import Iterator

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
from integration.path.running import free_ports


@pytest.fixture(scope="module", params=["starttls", "implicit"])
def port(postroom: Postroom, request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a Postfix of its own, which hands everything to Postroom."""
    postfix = tool("postfix")
    if os.geteuid() != 0 or not pathlib.Path("/etc/postfix/master.cf").exists():
        pytest.skip("a Postfix of one's own needs root and an installed configuration")
    with tempfile.TemporaryDirectory() as name:
        folder, own = pathlib.Path(name), free_ports()["relay"]
        configure(postroom, folder, own, implicit=request.param == "implicit")
        run(postfix, "-c", folder / "etc", "start")
        try:
            yield own
        finally:
            with contextlib.suppress(AssertionError):
                run(postfix, "-c", folder / "etc", "stop")


def configure(postroom: Postroom, folder: pathlib.Path, own: int, *, implicit: bool) -> None:
    etc = folder / "etc"
    for path in (etc, folder / "queue", folder / "data"):
        path.mkdir()
    folder.chmod(0o755)
    os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
    ca = folder / "ca.pem"
    shutil.copy(postroom.ca, ca)
    ca.chmod(0o644)
    lines = pathlib.Path("/etc/postfix/master.cf").read_text().splitlines()
    services = [line.replace("  y  ", "  n  ") for line in lines if line and not line.startswith(("#", " ", "\t", "smtp      inet"))]
    (etc / "master.cf").write_text(f"127.0.0.1:{own} inet n - n - - smtpd\n" + "\n".join(services) + "\n")
    passwords = etc / "passwords"
    target = f"[{HOST}]:{postroom.tls if implicit else postroom.submission}"
    passwords.write_text(f"{target} {USERNAME}:{PASSWORD}\n")
    settings = {
        **{"compatibility_level": "3.6", "queue_directory": folder / "queue", "data_directory": folder / "data"},
        **{"maillog_file": folder / "log", "maillog_file_prefixes": "/tmp", "myhostname": "client.d.example", "mydestination": ""},
        **{"inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4", "mynetworks": "127.0.0.0/8", "alias_maps": ""},
        **{"smtp_host_lookup": "native", "relayhost": target, "smtp_tls_wrappermode": "yes" if implicit else "no"},
        **{"smtp_tls_security_level": "verify", "smtp_tls_verify_cert_match": "hostname", "smtp_tls_CAfile": ca},
        **{"smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": f"texthash:{passwords}", "smtp_sasl_security_options": "noanonymous"},
    }
    (etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))


def test_it_delivers_and_dsn_parameters_arrive(postroom: Postroom, port: int) -> None:
    recipient = new_recipient()
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        options = [f"NOTIFY={NOTIFY}", f"ORCPT={ORCPT}"]
        client.sendmail(SENDER, recipient, content(recipient), ["BODY=8BITMIME", "RET=HDRS", f"ENVID={ENVID}"], options)
    message = postroom.arrival(recipient)
    dsn_arrived_unchanged(message)
    assert message.content.endswith(BODY)
