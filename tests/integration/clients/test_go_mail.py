"""go-mail: STARTTLS and implicit TLS, every mechanism that it has in common with us, RET and NOTIFY (it has no ENVID and no ORCPT)."""

import pathlib

import pytest

from integration.clients.postroom import HOST, NOTIFY, PASSWORD, SENDER, USERNAME, Postroom, build_go, new_recipient, run


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build_go("gomail", tmp_path_factory.mktemp("go"))


@pytest.mark.parametrize(
    ("mechanism", "implicit", "version"),
    [
        *(("AUTODISCOVER", False, ""), ("AUTODISCOVER", True, "1.2"), ("PLAIN", True, ""), ("LOGIN", True, "")),
        # Bound by tls-unique; with TLS 1.3 go-mail wants tls-exporter, and takes SCRAM without binding when it chooses for itself.
        *(("SCRAM-SHA-256", True, ""), ("SCRAM-SHA-256-PLUS", True, "1.2")),
    ],
)
def test_it_delivers_and_dsn_parameters_arrive(postroom: Postroom, program: pathlib.Path, mechanism: str, implicit: bool, version: str) -> None:
    recipient = new_recipient()
    port, way = (postroom.tls, "implicit") if implicit else (postroom.submission, "starttls")
    run(program, HOST, str(port), postroom.ca, USERNAME, PASSWORD, SENDER, recipient, way, mechanism, version)
    message = postroom.arrival(recipient)
    assert message.mail_parameters["RET"] == "HDRS"
    assert message.rcpt_parameters == ({"NOTIFY": NOTIFY},)
