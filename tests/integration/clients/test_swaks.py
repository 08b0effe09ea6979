"""swaks: STARTTLS and implicit TLS, PLAIN and LOGIN. It has no way to give DSN parameters."""

import pytest

from integration.clients.postroom import BODY, HOST, PASSWORD, SENDER, USERNAME, Postroom, content, new_recipient, run, tool


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("implicit", [False, True])
def test_it_delivers(postroom: Postroom, mechanism: str, implicit: bool) -> None:
    recipient = new_recipient()
    run(
        *(tool("swaks"), "--server", HOST, "--port", str(postroom.tls if implicit else postroom.submission)),
        *("--tls-on-connect" if implicit else "--tls", "--tls-verify", "--tls-ca-path", postroom.ca),
        *("--auth", mechanism, "--auth-user", USERNAME, "--auth-password", PASSWORD),
        *("--from", SENDER, "--to", recipient, "--data", "-"),
        stdin=content(recipient),
    )
    assert postroom.arrival(recipient).content.partition(BODY)[1]


def test_without_tls_it_is_told_to_encrypt(postroom: Postroom) -> None:
    swaks = tool("swaks")
    with pytest.raises(AssertionError, match=r"530 5\.7\.0"):
        run(swaks, "--server", HOST, "--port", str(postroom.submission), "--from", SENDER, "--to", new_recipient())
