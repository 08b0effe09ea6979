"""aiosmtplib: send() with STARTTLS and implicit TLS, DSN parameters by the options of its MAIL and RCPT."""

import asyncio
import ssl

import aiosmtplib
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


@pytest.mark.parametrize("implicit", [False, True])
def test_it_delivers_and_dsn_parameters_arrive(postroom: Postroom, implicit: bool) -> None:
    recipient = new_recipient()
    asyncio.run(
        aiosmtplib.send(
            content(recipient),
            sender=SENDER,
            recipients=[recipient],
            hostname=HOST,
            port=postroom.tls if implicit else postroom.submission,
            username=USERNAME,
            password=PASSWORD,
            use_tls=implicit,
            start_tls=not implicit,
            tls_context=ssl.create_default_context(cafile=postroom.ca),
            mail_options=["BODY=8BITMIME", "RET=HDRS", f"ENVID={ENVID}"],
            rcpt_options=[f"NOTIFY={NOTIFY}", f"ORCPT={ORCPT}"],
        )
    )
    message = postroom.arrival(recipient)
    dsn_arrived_unchanged(message)
    assert message.content.endswith(BODY)
