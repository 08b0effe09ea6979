"""Session tickets: good at the process that gave them, also after a reload; worth a full handshake, never an error, at another replica."""

import ssl

import pytest
import trustme

from postroom_core.documents import Certificate
from postroom_core.testing.certificate import self_signed
from postroom_ingress.tls import Tls

HOST = "mta.d.example"
MADE = self_signed(HOST)
CERTIFICATE = Certificate(name="default", chain=MADE.certificate.decode(), private_key=MADE.key.decode())


def replica() -> Tls:
    made = Tls()
    made.replace([CERTIFICATE])
    return made


def visit(server: Tls, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    """A handshake and a greeting, without sockets; the client's side of it."""
    context = server.current()
    assert context is not None
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname=HOST, session=session)
    there = context.wrap_bio(up, down, server_side=True)
    waiting = [there.do_handshake, here.do_handshake]
    while waiting:
        for step in list(waiting):
            try:
                step()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(step)
    there.write(b"220 ")
    assert here.read(4) == b"220 "  # with it come the tickets of TLS 1.3
    return here


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("asked", [False, True], ids=["", "asked for a certificate"])
def test_a_ticket_resumes_here_and_is_no_error_elsewhere(version: ssl.TLSVersion, asked: bool) -> None:
    client = ssl._create_unverified_context()
    client.minimum_version = client.maximum_version = version
    here, elsewhere = replica(), replica()
    if asked:
        authorities = trustme.CA().cert_pem.bytes().decode()
        for server in (here, elsewhere):
            server.trust(authorities)
    first = visit(here, client)
    assert not first.session_reused
    assert visit(here, client, first.session).session_reused
    other = self_signed("b.example")
    here.replace([CERTIFICATE, Certificate(name="b", hostnames=("b.example",), chain=other.certificate.decode(), private_key=other.key.decode())])
    assert visit(here, client, first.session).session_reused, "the certificate of somebody else has changed"
    assert not visit(elsewhere, client, first.session).session_reused
    renewed = self_signed(HOST)
    here.replace([Certificate(name="default", chain=renewed.certificate.decode(), private_key=renewed.key.decode())])
    assert not visit(here, client, first.session).session_reused
