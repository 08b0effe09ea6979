"""The page of a cluster: a real delivery spool behind real mTLS, and an API server of two paths that has MailDomains."""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from postroom.v1 import analytics_pb2_grpc, queue_pb2_grpc, reputation_pb2_grpc, webhooks_pb2_grpc
from postroom_cli import clusterpage
from postroom_cli.clusterpage import Settings
from postroom_core import http, rpc
from postroom_core.clock import SystemClock
from postroom_core.errors import Permanent
from postroom_delivery import https
from postroom_delivery.analytics_servicer import AnalyticsServicer
from postroom_delivery.pools import Pools
from postroom_delivery.reputation_keeper import Curbs
from postroom_delivery.reputation_servicer import ReputationServicer
from postroom_delivery.resolver import Resolver
from postroom_delivery.servicer import QueueServicer
from postroom_delivery.signing import Signing
from postroom_delivery.spool.model import Limits
from postroom_delivery.spool.opening import open_spool
from postroom_delivery.webhook_sender import Webhooks
from postroom_delivery.webhooks_servicer import WebhooksServicer
from postroom_web.login import Role

from contract.test_spool import message
from integration.core.test_mtls import Platform, free_port

TOKEN = "a-token-that-is-long-enough"
RECORD = {
    "name": "s1._domainkey.a.example",
    "type": "TXT",
    "value": "v=DKIM1; k=rsa; p=MIIB",
    "required": True,
    "purpose": "DKIM RSA2048",
    "visible": "True",
}


def domain(name: str, pool: str, namespace: str = "mail", **status: Any) -> dict[str, Any]:
    reference = {"name": pool} if namespace == "mail" else {"name": pool, "namespace": "mail"}
    return {
        "apiVersion": "mail.postroom.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"domainName": name, "poolRef": reference},
        "status": status,
    }


DOMAINS = [
    domain("a.example", "main", dnsRecords=[RECORD], dkim={"keys": [{"selector": "s1", "algorithm": "RSA2048", "state": "Active"}]}),
    domain("b.example", "main", "tenant"),
    domain("c.example", "other"),
]


@contextlib.asynccontextmanager
async def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settings]:
    """Everything around the page."""
    platform = Platform(tmp_path / "platform")
    folders = {service: platform.folder(service) for service in ("delivery", "web")}
    target, port, api_port = (free_port() for _ in range(3))
    (tmp_path / "tokens").mkdir()
    for role in Role:
        (tmp_path / "tokens" / role.value).write_text(f"{role.value}-{TOKEN}\n")
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"kind": "MailDomainList", "metadata": {"resourceVersion": "1"}, "items": DOMAINS})

    api = web.Application()
    api.router.add_get("/apis/mail.postroom.dev/v1alpha1/maildomains", listed)
    clock, pools = SystemClock(), Pools()
    async with (
        http.serve(f"127.0.0.1:{api_port}", api),
        open_spool(lambda: f"sqlite://{tmp_path}/spool.db", "me", 0, lambda _: Limits(1, None, 1)) as spool,
    ):
        await spool.accept(message("01M86SWK2QP69ZZ8FXM8G2T3Q0"), (0, b"body"))

        def register(server: rpc.Server) -> None:
            signing = Signing(None, "mta.example", clock, spool.body)
            queue_pb2_grpc.add_QueueServicer_to_server(QueueServicer(spool, pools, clock, "mta.example", signing), server)
            analytics_pb2_grpc.add_AnalyticsServicer_to_server(AnalyticsServicer(spool), server)
            reputation_pb2_grpc.add_ReputationServicer_to_server(ReputationServicer(Curbs(spool, pools, clock), clock), server)
            nobody = https.Https(Resolver(()), lambda _: False, https.context(""))
            webhooks_pb2_grpc.add_WebhooksServicer_to_server(WebhooksServicer(spool, Webhooks(spool, nobody, clock), clock), server)

        async with rpc.serve(f"127.0.0.1:{target}", register, grace_seconds=0, tls=folders["delivery"]):
            yield Settings(
                page_pool="main-delivery",
                page_tokens=tmp_path / "tokens",
                delivery_target=f"127.0.0.1:{target}",
                grpc_tls=folders["web"],
                platform_namespace="mail",
                http=f"127.0.0.1:{port}",
            )


def test_who_logs_in_sees_the_queue_and_the_domains_of_this_pool_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        async with cluster(tmp_path, monkeypatch) as settings, clusterpage.serving(settings), aiohttp.ClientSession(cookie_jar=jar) as browser:
            where = f"http://{settings.http}"

            async def text(path: str) -> str:
                async with browser.get(f"{where}{path}") as answer:
                    return await answer.text()

            assert "token" in await text("/queue")  # the login
            async with browser.post(f"{where}/login", data={"token": f"viewer-{TOKEN}"}) as answer:
                assert answer.status == 200
            assert "b@x.example" in await text("/messages/01M86SWK2QP69ZZ8FXM8G2T3Q0")
            async with asyncio.timeout(20):
                while "a.example" not in (domains := await text("/domains")):
                    await asyncio.sleep(0.05)
            assert "b.example" in domains and "c.example" not in domains
            shown = await text("/domains/a.example")
            assert str(RECORD["value"]) in shown and "DKIM RSA2048" in shown
            assert await text("/healthz") == "ok\n"

    asyncio.run(scenario())


def test_the_keys_that_a_check_compares_with_dns_are_those_of_the_status() -> None:
    (key,) = clusterpage.own_keys(DOMAINS[0])
    assert (key.selector, key.algorithm, key.public, key.active) == ("s1", "RSA2048", "MIIB", True)
    assert clusterpage.own_keys(DOMAINS[1]) == ()


def test_a_token_that_anybody_could_guess_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Permanent, match="no token for the"):
        clusterpage.tokens(tmp_path)
    for role in Role:
        (tmp_path / role.value).write_text("short")
    with pytest.raises(Permanent, match="fewer than 16"):
        clusterpage.tokens(tmp_path)
