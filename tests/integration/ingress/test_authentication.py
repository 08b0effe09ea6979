"""AUTH over real TLS: every mechanism with foreign clients, rotation, and what attackers must not learn (A8)."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import re
import ssl
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from postroom_core import http
from postroom_core.documents import ClientCertificate, Credential, Domain, Limits, ServiceAccount
from postroom_operator.verifiers import derive

from integration.ingress import signing_in
from integration.ingress.running import VERIFIER, Running, domain, free_ports, run
from integration.ingress.signing_in import context

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
OK = "235 2.7.0 Authentication succeeded"
NO = "535 5.7.8 Authentication failed"


def credential(name: str, **values: Any) -> Credential:
    return Credential(name=name, username=f"{name}@d.example", allowed_senders=("*@d.example",), **values)


def port(running: Running) -> int:
    return int(running.settings.listen_tls.rpartition(":")[2])


@pytest.mark.parametrize(("version", "kinds"), [(TLS12, ("tls-unique", "tls-server-end-point")), (TLS13, ("tls-server-end-point",))])
def test_scram_plus_binds_to_the_channel(tmp_path: pathlib.Path, version: ssl.TLSVersion, kinds: tuple[str, ...]) -> None:
    async def scenario(running: Running) -> None:
        for kind in kinds:
            assert await asyncio.to_thread(signing_in.scram, port(running), "u", "p", bind=kind, tls=context(version)) == OK
            assert await asyncio.to_thread(signing_in.scram, port(running), "u", "wrong", bind=kind, tls=context(version)) == NO
        assert await asyncio.to_thread(signing_in.scram, port(running), "u", "p", tls=context(version)) == OK

    run(tmp_path, scenario, error_seconds=0.01)


@pytest.mark.parametrize(("version", "announced"), [(TLS12, True), (TLS13, False)])
def test_plus_is_announced_where_every_client_that_takes_it_will_get_in(tmp_path: pathlib.Path, version: ssl.TLSVersion, announced: bool) -> None:
    async def scenario(running: Running) -> None:
        def features() -> str:
            with signing_in.connected(port(running), context(version)) as client:
                return str(client.esmtp_features["auth"])

        assert ("SCRAM-SHA-256-PLUS" in await asyncio.to_thread(features)) is announced

    run(tmp_path, scenario)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
def test_two_passwords_are_valid_during_a_rotation_and_a_third_is_not(tmp_path: pathlib.Path, mechanism: str) -> None:
    verifiers = tuple(derive(text, b"salt of one user") for text in ("new", "old"))

    async def scenario(running: Running) -> None:
        for text, reply in (("new", OK), ("old", OK), ("older", NO)):
            arguments = (port(running), "app@d.example", text)
            if mechanism.startswith("SCRAM"):
                assert await asyncio.to_thread(signing_in.scram, *arguments) == reply
            else:
                assert await asyncio.to_thread(signing_in.password, *arguments, mechanism) == reply

    run(tmp_path, scenario, domain(credentials=(credential("app", verifiers=verifiers),)), error_seconds=0.01)


# EXTERNAL


def certified(name: str, authority: trustme.CA, names: tuple[str, ...], **values: Any) -> Credential:
    pem = authority.cert_pem.bytes().decode()
    return credential(name, client_certificate=ClientCertificate(authorities=pem, names=names), **values)


def external(running: Running, certificate: trustme.LeafCert | None, username: str = "", version: ssl.TLSVersion = TLS13) -> str:
    return signing_in.respond(port(running), context(version, certificate), "EXTERNAL", username.encode())


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_client_certificate_is_the_credential_that_names_it(tmp_path: pathlib.Path, version: ssl.TLSVersion) -> None:
    authority = trustme.CA()
    document = domain(credentials=(certified("app", authority, ("app.d.example",)),))

    async def scenario(running: Running) -> None:
        ours, others = authority.issue_cert("app.d.example"), authority.issue_cert("other.d.example")
        assert await asyncio.to_thread(external, running, ours, "", version) == OK
        assert await asyncio.to_thread(external, running, ours, "app@d.example", version) == OK
        assert await asyncio.to_thread(external, running, ours, "somebody@d.example", version) == NO
        assert await asyncio.to_thread(external, running, others, "", version) == NO
        assert (await asyncio.to_thread(external, running, None, "", version)).startswith("504")

    run(tmp_path, scenario, document, error_seconds=0.01)


def test_one_tenants_authority_makes_no_certificates_of_another_tenant(tmp_path: pathlib.Path) -> None:
    """A13's cousin: the handshake accepts both authorities, AUTH must not."""
    ours, theirs = trustme.CA(), trustme.CA()
    documents = (
        domain(credentials=(certified("app", ours, ("app.d.example",)),)),
        domain(name="e.example", tenant="e", clients=(), credentials=(certified("evil", theirs, ("evil.e.example",)),)),
    )

    async def scenario(running: Running) -> None:
        assert await asyncio.to_thread(external, running, theirs.issue_cert("evil.e.example")) == OK
        assert await asyncio.to_thread(external, running, theirs.issue_cert("app.d.example")) == NO
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(external, running, trustme.CA().issue_cert("app.d.example"))

    run(tmp_path, scenario, *documents, error_seconds=0.01)


# Tokens of ServiceAccounts


class TokenIssuer:
    """An OpenID Connect issuer on loopback; `up` False answers 503."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.up = True
        self.asked = 0
        self._key = ec.generate_private_key(ec.SECP256R1())

    def token(self, subject: str = "system:serviceaccount:shop:mailer", **changes: Any) -> bytes:
        now = int(time.time())
        claims = {"iss": self.url, "aud": ["postroom"], "iat": now, "exp": now + 600, "sub": subject} | changes
        return jwt.encode(claims, changes.pop("key", None) or self._key, "ES256", {"kid": "k1"}).encode()

    def application(self) -> web.Application:
        async def configuration(_: web.Request) -> web.Response:
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}, status=200 if self.up else 503)

        async def keys(_: web.Request) -> web.Response:
            self.asked += 1
            key = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
            return web.json_response({"keys": [key | {"kid": "k1", "use": "sig", "alg": "ES256"}]})

        app = web.Application()
        app.add_routes([web.get("/.well-known/openid-configuration", configuration), web.get("/keys", keys)])
        return app


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    yield TokenIssuer()


SHOP = domain(credentials=(credential("app", service_accounts=(ServiceAccount(namespace="shop", name="mailer"),)),))


def bearer(running: Running, token: bytes, mechanism: str = "OAUTHBEARER", username: str = "") -> str:
    head = f"user={username}" if mechanism == "XOAUTH2" else f"n,{f'a={username}' if username else ''},"
    first = head.encode() + b"\x01auth=Bearer " + token + b"\x01\x01"
    with signing_in.connected(port(running), context()) as client:
        code, text = client.docmd("AUTH", f"{mechanism} {signing_in._encode(first.decode())}")
        if code == 334:
            assert b"invalid_token" in base64.b64decode(text)
            code, text = client.docmd("AQ==")
        return f"{code} {text.decode()}"


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_a_service_accounts_token_is_the_credential_that_names_it(tmp_path: pathlib.Path, issuer: TokenIssuer, mechanism: str) -> None:
    async def scenario(running: Running) -> None:
        async with http.serve(f"127.0.0.1:{issuer.port}", issuer.application()):
            assert await asyncio.to_thread(bearer, running, issuer.token(), mechanism, "app@d.example") == OK
            wrong = {
                "another account": issuer.token("system:serviceaccount:shop:other"),
                "another namespace": issuer.token("system:serviceaccount:evil:mailer"),
                "a person": issuer.token("system:admin"),
                "another audience": issuer.token(aud=["https://kubernetes.default.svc"]),
                "another issuer": issuer.token(iss="https://evil.example"),
                "expired": issuer.token(exp=int(time.time()) - 60),
                "without an end": issuer.token(exp=None),
                "signed by another": jwt.encode(
                    {"sub": "system:serviceaccount:shop:mailer"}, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "k1"}
                ).encode(),
                "unsigned": jwt.encode({"sub": "system:serviceaccount:shop:mailer"}, "", "none", {"kid": "k1"}).encode(),
                "an unknown key": jwt.encode({"sub": "x"}, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "k2"}).encode(),
                "no token": b"x.y.z",
            }
            for why, token in wrong.items():
                assert await asyncio.to_thread(bearer, running, token, mechanism, "app@d.example") == NO, why
            assert await asyncio.to_thread(bearer, running, issuer.token(), mechanism, "other@d.example") == NO
        assert issuer.asked == 1

    run(tmp_path, scenario, SHOP, error_seconds=0.01, token_issuer=issuer.url)


def test_keys_that_cannot_be_had_are_454_and_keys_once_had_go_on(tmp_path: pathlib.Path, issuer: TokenIssuer) -> None:
    async def scenario(running: Running) -> None:
        reply = await asyncio.to_thread(bearer, running, issuer.token())
        assert reply == "454 4.7.0 The credential cannot be checked now, try again later"

    run(tmp_path, scenario, SHOP, error_seconds=0.01, token_issuer=issuer.url)


def test_keys_may_be_a_file(tmp_path: pathlib.Path, issuer: TokenIssuer) -> None:
    key = jwt.algorithms.ECAlgorithm.to_jwk(issuer._key.public_key(), as_dict=True)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [key | {"kid": "k1"}]}))

    async def scenario(running: Running) -> None:
        assert await asyncio.to_thread(bearer, running, issuer.token()) == OK

    run(tmp_path, scenario, SHOP, error_seconds=0.01, token_issuer=issuer.url, token_keys=str(path))


def test_tokens_are_not_announced_where_nobody_could_check_them(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        dialogue = await running.connect("tls")
        assert "OAUTHBEARER" not in await dialogue.ask("EHLO client.test")
        assert (await dialogue.ask("AUTH OAUTHBEARER =")).startswith("504")

    run(tmp_path, scenario, SHOP)


# A8


def test_a8_unknown_user_and_wrong_password_have_one_text_and_one_time(tmp_path: pathlib.Path) -> None:
    """Also a user with two passwords, of whom a wrong one costs two checks, and a source that is not allowed although the password is right."""
    rotated = credential("rotated", verifiers=tuple(derive(text, b"salt of one user") for text in ("new", "old")))
    elsewhere = credential("elsewhere", verifiers=(VERIFIER,), allowed_source_cidrs=("198.51.100.0/24",))

    async def scenario(running: Running) -> None:
        users = {"nobody@d.example": "x", "rotated@d.example": "x", "elsewhere@d.example": "p"}
        times: dict[str, list[float]] = {user: [] for user in users}
        for round_ in range(4):
            for user, secret in users.items():
                began = time.perf_counter()
                assert await asyncio.to_thread(signing_in.password, port(running), user, f"{secret}{round_ if secret == 'x' else ''}") == NO
                times[user].append(time.perf_counter() - began)
        medians = [statistics.median(found) for found in times.values()]
        assert min(medians) >= 1.0
        assert max(medians) - min(medians) < 0.35, medians

    run(tmp_path, scenario, domain(credentials=(rotated, elsewhere)))


def test_a8_scram_gives_unknown_users_a_salt_that_stays(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        salts = set()
        for _ in range(2):
            dialogue = await running.connect("tls")
            first = signing_in._encode("n,,n=nobody,r=abc")
            reply = await dialogue.ask(f"AUTH SCRAM-SHA-256 {first}")
            dialogue.close()
            salts.add(re.sub(r"^r=[^,]*", "", base64.b64decode(reply[4:]).decode()))
        assert len(salts) == 1

    run(tmp_path, scenario)


def test_a8_guessing_is_throttled_over_sessions_and_the_one_who_was_in_stays_in(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        good = await running.connect("tls", "127.0.0.9")
        assert (await good.login()).startswith("235")
        replies = []
        for number in range(12):
            guesser = await running.connect("tls", f"127.0.1.{number + 1}")
            replies.append(await guesser.login(password=f"guess{number}"))
            guesser.close()
        assert [reply[:3] for reply in replies] == ["535"] * 10 + ["421"] * 2
        assert re.fullmatch(r"421 4\.7\.0 Too many failed authentications, try again in \d+ s", replies[-1])
        fresh = await running.connect("tls", "127.0.2.1")
        assert (await fresh.login()).startswith("421"), "the right password is not told from a wrong one"
        again = await running.connect("tls", "127.0.0.9")
        assert (await again.login()).startswith("235")

    run(tmp_path, scenario, error_seconds=0.01)


# Connections


def test_connections_of_a_credential_and_of_a_domain_are_limited(tmp_path: pathlib.Path) -> None:
    one = credential("one", verifiers=(VERIFIER,), limits=Limits(max_connections=1))
    two = credential("two", verifiers=(VERIFIER,))
    document: Domain = domain(credentials=(one, two), limits=Limits(max_connections=2))

    async def scenario(running: Running) -> None:
        opened = []

        async def enter(name: str) -> str:
            opened.append(await running.connect("tls"))
            return await opened[-1].login(f"{name}@d.example")

        assert (await enter("one")).startswith("235")
        assert await enter("one") == "421 4.7.0 Too many connections with this credential, close some first"
        assert (await enter("two")).startswith("235")
        assert (await enter("two")).startswith("421")
        assert (await opened[0].ask("QUIT")).startswith("221")
        assert await opened[0].reply() == ""
        assert (await enter("one")).startswith("235")

    run(tmp_path, scenario, document, error_seconds=0.01)
