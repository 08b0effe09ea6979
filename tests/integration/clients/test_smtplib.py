"""CPython's smtplib: STARTTLS and implicit TLS, every mechanism that it has in common with us, DSN parameters."""

import smtplib
import ssl

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
)


def connect(postroom: Postroom, *, implicit: bool) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=postroom.ca)
    if implicit:
        return smtplib.SMTP_SSL(HOST, postroom.tls, timeout=30, context=context)
    client = smtplib.SMTP(HOST, postroom.submission, timeout=30)
    client.starttls(context=context)
    return client


@pytest.mark.parametrize("implicit", [False, True])
def test_it_delivers_with_its_own_choice_of_mechanism_and_dsn_parameters_arrive(postroom: Postroom, implicit: bool) -> None:
    recipient = new_recipient()
    with connect(postroom, implicit=implicit) as client:
        client.login(USERNAME, PASSWORD)
        client.sendmail(
            SENDER,
            recipient,
            content(recipient),
            mail_options=["BODY=8BITMIME", "RET=HDRS", f"ENVID={ENVID}"],
            rcpt_options=[f"NOTIFY={NOTIFY}", f"ORCPT={ORCPT}"],
        )
    message = postroom.arrival(recipient)
    dsn_arrived_unchanged(message)
    assert message.content.endswith(BODY)


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
@pytest.mark.parametrize("initial", [True, False])
def test_plain_and_login_work_with_and_without_an_initial_response(postroom: Postroom, mechanism: str, initial: bool) -> None:
    with connect(postroom, implicit=True) as client:
        client.ehlo()
        client.user, client.password = USERNAME, PASSWORD
        code, _ = client.auth(mechanism.removeprefix("auth_").upper(), getattr(client, mechanism), initial_response_ok=initial)
        assert code == 235


def test_a_wrong_password_is_535_and_the_right_one_still_works_in_the_same_session(postroom: Postroom) -> None:
    with connect(postroom, implicit=True) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login(USERNAME, "wrong")
        assert caught.value.smtp_code == 535
        client.login(USERNAME, PASSWORD)
