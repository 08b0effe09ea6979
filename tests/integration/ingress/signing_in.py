"""Foreign clients that authenticate: smtplib for the dialogue, scramp for SCRAM. They block: run them in a thread."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import ssl
from collections.abc import Iterator
from typing import Any

from scramp import ScramClient


def context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, certificate: Any = None) -> ssl.SSLContext:
    """Of a client that trusts anybody; `certificate` is one of trustme's, to be shown when it is asked for."""
    made = ssl._create_unverified_context()
    made.minimum_version = made.maximum_version = version
    if certificate is not None:
        certificate.configure_cert(made)
    return made


@contextlib.contextmanager
def connected(port: int, tls: ssl.SSLContext) -> Iterator[smtplib.SMTP]:
    """Over implicit TLS, greeted."""
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, context=tls) as client:
        client.ehlo()
        yield client


def respond(port: int, tls: ssl.SSLContext, mechanism: str, *responses: bytes) -> str:
    """AUTH with these responses in turn, the first as initial response; the last reply."""
    with connected(port, tls) as client:
        code, text = client.docmd("AUTH", f"{mechanism} {base64.b64encode(responses[0]).decode() or '='}")
        for response in responses[1:]:
            assert code == 334, (code, text)
            code, text = client.docmd(base64.b64encode(response).decode())
        return f"{code} {text.decode()}"


def password(port: int, username: str, secret: str, mechanism: str = "PLAIN") -> str:
    """PLAIN or LOGIN; the reply."""
    responses = (f"\0{username}\0{secret}",) if mechanism == "PLAIN" else (username, secret)
    return respond(port, context(), mechanism, *(text.encode() for text in responses))


def scram(port: int, username: str, secret: str, *, bind: str = "", tls: ssl.SSLContext | None = None) -> str:
    """SCRAM-SHA-256, or -PLUS when bound to a channel of the type `bind`; checks the server's proof; the reply."""
    with connected(port, tls or context()) as client:
        mechanism = "SCRAM-SHA-256-PLUS" if bind else "SCRAM-SHA-256"
        made = ScramClient([mechanism], username, secret, channel_binding=(bind, client.sock) if bind else None)
        code, text = client.docmd("AUTH", f"{mechanism} {_encode(made.get_client_first())}")
        if code == 334:
            made.set_server_first(base64.b64decode(text).decode())
            code, text = client.docmd(_encode(made.get_client_final()))
        if code == 334:
            made.set_server_final(base64.b64decode(text).decode())
            code, text = client.docmd("")
        return f"{code} {text.decode()}"


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
