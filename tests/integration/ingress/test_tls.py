"""TLS of the listeners: versions, names, reload, tickets."""

import asyncio
import pathlib
import socket
import ssl
from typing import Any

import pytest
from cryptography import x509

from postroom_core.documents import Certificate
from postroom_core.testing.certificate import self_signed

from integration.ingress.running import Running, certificate, domain, run


def named(name: str, *hostnames: str) -> Certificate:
    made = self_signed(hostnames[0].replace("*", "any"))
    return Certificate(name=name, hostnames=hostnames, chain=made.certificate.decode(), private_key=made.key.decode())


def context(**changes: Any) -> ssl.SSLContext:
    made = ssl._create_unverified_context()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


async def handshake(running: Running, name: str | None, made: ssl.SSLContext | None = None) -> tuple[str, ssl.SSLObject]:
    """The name in the certificate that the server shows, and the connection."""
    # Without a name asyncio wants "", which sends no SNI.
    reader, writer = await asyncio.open_connection(*running.address("tls"), ssl=made or context(), server_hostname=name or "")
    assert (await reader.readline()).startswith(b"220 ")
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    writer.close()
    return str(x509.load_der_x509_certificate(shown).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value), tls


def test_each_domain_has_its_certificate_and_everybody_else_the_default(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        running.publish(domain(), certificate(), named("a", "smtp.a.example", "mail.a.example"), named("b", "*.b.example"), version="2")
        async with asyncio.timeout(10):
            while (await handshake(running, "mail.a.example"))[0] != "smtp.a.example":
                await asyncio.sleep(0.05)
        assert (await handshake(running, "SMTP.A.example"))[0] == "smtp.a.example"
        assert (await handshake(running, "x.b.example"))[0] == "any.b.example"
        for name in (None, "b.example", "x.y.b.example", "unknown.example"):
            assert (await handshake(running, name))[0] == "mta.d.example", name

    run(tmp_path, scenario)


def test_a_new_certificate_serves_the_next_handshake_a_broken_one_none_and_sessions_go_on(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.authenticated()
        fresh = self_signed("new.d.example")
        renewed = Certificate(name="default", chain=fresh.certificate.decode(), private_key=fresh.key.decode())
        running.publish(domain(), renewed, version="2")
        async with asyncio.timeout(10):
            while (await handshake(running, "x"))[0] != "new.d.example":
                await asyncio.sleep(0.05)
        broken = Certificate(name="default", chain="no", private_key="no")
        running.publish(domain(credentials=()), broken, version="3")
        async with asyncio.timeout(10):
            while not (await (await running.connect("tls")).login()).startswith("535"):
                await asyncio.sleep(0.05)
        assert (await handshake(running, "x"))[0] == "new.d.example"
        assert (await client.ask("NOOP")).startswith("250")

    run(tmp_path, scenario, error_seconds=0.0)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_work_with_ciphers_of_today(tmp_path: pathlib.Path, version: ssl.TLSVersion) -> None:
    async def scenario(running: Running) -> None:
        _, tls = await handshake(running, "x", context(minimum_version=version, maximum_version=version))
        cipher = tls.cipher()
        assert cipher is not None
        assert "GCM" in cipher[0] or "POLY1305" in cipher[0]

    run(tmp_path, scenario)


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE+AES+SHA1:@SECLEVEL=0", "aNULL:@SECLEVEL=0"])
def test_weak_ciphers_of_tls_1_2_are_refused(tmp_path: pathlib.Path, ciphers: str) -> None:
    async def scenario(running: Running) -> None:
        weak = context(maximum_version=ssl.TLSVersion.TLSv1_2)
        weak.set_ciphers(ciphers)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(running, "x", weak)

    run(tmp_path, scenario)


def test_a_ticket_resumes_a_session_in_one_process_and_a_reload_of_another_certificate_leaves_it(tmp_path: pathlib.Path) -> None:
    """With blocking sockets: asyncio's client cannot hand a session back."""

    def visit(running: Running, made: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        plain = socket.create_connection(running.address("tls"), timeout=10)
        with made.wrap_socket(plain, server_hostname="x", session=session) as tls:
            tls.recv(100)
            return tls.session_reused, tls.session

    async def scenario(running: Running) -> None:
        made = context(maximum_version=ssl.TLSVersion.TLSv1_2)
        first, ticket = await asyncio.to_thread(visit, running, made, None)
        again, _ = await asyncio.to_thread(visit, running, made, ticket)
        assert (first, again) == (False, True)

    run(tmp_path, scenario)
