"""Go's net/smtp: STARTTLS and implicit TLS with PLAIN. It has no way to give DSN parameters."""

import pathlib

import pytest

from integration.clients.postroom import BODY, HOST, PASSWORD, SENDER, USERNAME, Postroom, build_go, content, new_recipient, run


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build_go("netsmtp", tmp_path_factory.mktemp("go"))


@pytest.mark.parametrize("implicit", [False, True])
def test_it_delivers(postroom: Postroom, program: pathlib.Path, implicit: bool) -> None:
    recipient = new_recipient()
    port, way = (postroom.tls, "implicit") if implicit else (postroom.submission, "starttls")
    run(program, HOST, str(port), postroom.ca, USERNAME, PASSWORD, SENDER, recipient, way, stdin=content(recipient))
    assert postroom.arrival(recipient).content.endswith(BODY)
