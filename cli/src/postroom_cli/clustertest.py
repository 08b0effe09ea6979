"""`python -m postroom_cli.clustertest`: what `helm test` runs in a pod. One message through the whole installation, its signature verified.

1. A receiving server is opened in this pod. 2. A SendingPool with a route to it and a MailDomain with a key of the test's own are made.
3. A message is submitted to ingress over TLS with the domain's credential, again and again until it is accepted. 4. It must arrive, with a
signature that verifies by dkimpy against the key's public half. 5. Everything that was made is taken away, whatever happened.

Nothing leaves the cluster, and no other pool or domain is touched.
"""

import asyncio
import contextlib
import pathlib
import secrets
import smtplib
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import dkim
import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from postroom_core.errors import Permanent, PostroomError
from postroom_core.settings import PREFIX, load
from postroom_core.testing.sink import Received, Sink
from postroom_operator.kube.api import Api
from postroom_operator.kube.kinds import MAIL_DOMAIN, SENDING_POOL, Kind
from postroom_operator.plan import keys
from postroom_operator.plan.names import GROUP, VERSION, workload

NAME = "helm-test"
SELECTOR = "test"
SINK_PORT = 2525
CLAIM = create_namespaced_resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
# A volume is made, an image is pulled, a pod starts.
START_SECONDS = 180.0
ARRIVE_SECONDS = 60.0
END_SECONDS = 90.0
REQUEST_SECONDS = 20.0
PAUSE_SECONDS = 1.0
Object = dict[str, Any]


class Settings(BaseSettings):
    """The chart sets them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    platform_namespace: str = Field(min_length=1, max_length=63, description="of the release")
    test_address: str = Field(min_length=2, description="this pod's own address")
    test_submission: str = Field(pattern=r"^.+:\d+$", description="HOST:PORT of ingress's Service")
    test_implicit_tls: bool = Field(default=False, description="whether that port begins with TLS")
    test_secrets: pathlib.Path = Field(description="folder with username and password of the credential and tls.key of the domain")

    @property
    def domain(self) -> str:
        """One of no zone, and another one for each installation."""
        return f"{self.platform_namespace}.{NAME}.invalid"


def resources(settings: Settings) -> list[tuple[Kind, Object]]:
    """The pool and the domain of the test."""
    host = {"host": settings.test_address, "port": SINK_PORT, "tls": "Opportunistic"}
    pool = {
        "routes": [{"name": "sink", "match": ["*"], "smartHost": host}],
        "retry": {"maxAge": "1h", "backoff": {"initial": "1s", "max": "5s"}},
        "drainSeconds": 5,
    }
    domain = {
        "domainName": settings.domain,
        "poolRef": {"name": NAME},
        "dkim": {"importedKeys": [{"selector": SELECTOR, "secretRef": {"name": f"{NAME}-key"}}]},
        "dns": {"provider": "Manual", "dmarc": {"policy": "Unmanaged"}},
        "credentials": [{"name": "test", "secretRef": {"name": f"{NAME}-credential"}, "allowedSenders": [f"*@{settings.domain}"]}],
    }
    metadata = {"name": NAME, "namespace": settings.platform_namespace}
    both = ((SENDING_POOL, "SendingPool", pool), (MAIL_DOMAIN, "MailDomain", domain))
    return [(kind, {"apiVersion": f"{GROUP}/{VERSION}", "kind": name, "metadata": metadata, "spec": spec}) for kind, name, spec in both]


@contextlib.asynccontextmanager
async def made(api: Api, settings: Settings) -> AsyncIterator[None]:
    """Both resources, without what an interrupted test may have left; gone at the end, with the pool's volume."""
    await _remove(api, settings)
    try:
        for kind, body in resources(settings):
            await api.create(kind, body)
        yield
    finally:
        await _remove(api, settings)


async def _remove(api: Api, settings: Settings) -> None:
    namespace = settings.platform_namespace
    for kind in (MAIL_DOMAIN, SENDING_POOL):
        await api.delete(kind, NAME, namespace)
    ends = time.monotonic() + END_SECONDS
    while [kind for kind in (MAIL_DOMAIN, SENDING_POOL) if await api.get(kind, NAME, namespace) is not None]:
        if time.monotonic() > ends:
            raise Permanent(f"{NAME} is not gone after {END_SECONDS:.0f} s; does the operator run?")
        await asyncio.sleep(PAUSE_SECONDS)
    await api.delete(CLAIM, f"spool-{workload(namespace, NAME, namespace)}-0", namespace)


async def submit(api: Api, settings: Settings, marker: str) -> None:
    """Until it is accepted. Raises Permanent with the last answer, and with what the resources say."""
    ends, answer = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < ends:
        try:
            await asyncio.to_thread(_send, settings, marker)
        except (OSError, smtplib.SMTPException) as error:
            answer = str(error)
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
    raise Permanent(f"ingress did not accept the message: {answer}; {await _told(api, settings)}")


def _send(settings: Settings, marker: str) -> None:
    host, _, port = settings.test_submission.rpartition(":")
    context = ssl.create_default_context()
    # Ingress has a certificate of its own where the installation has none of a public authority.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    username, password = ((settings.test_secrets / part).read_text() for part in ("username", "password"))
    sender, recipient = f"test@{settings.domain}", f"sink@{settings.domain}"
    content = f"From: {sender}\r\nTo: {recipient}\r\nSubject: {marker}\r\n\r\nA test of the installation.\r\n"
    client: smtplib.SMTP
    if settings.test_implicit_tls:
        client = smtplib.SMTP_SSL(host, int(port), timeout=10, context=context)
    else:
        client = smtplib.SMTP(host, int(port), timeout=10)
    with client:
        if not settings.test_implicit_tls:
            client.starttls(context=context)
        client.login(username, password)
        client.sendmail(sender, [recipient], content.encode())


async def _told(api: Api, settings: Settings) -> str:
    """The first condition of each resource that is not True, but for records that nobody publishes here."""
    told = []
    for kind, body in resources(settings):
        found = await api.get(kind, NAME, settings.platform_namespace) or {}
        bad = [
            c for c in found.get("status", {}).get("conditions", []) if c["status"] != "True" and c["type"] not in ("Ready", "DNSReady", "Scalable")
        ]
        told += [f"{body['kind']} {c['type']}: {c['reason']} {c['message']}".strip() for c in bad if c["type"] != "DKIMRotating"]
    return "; ".join(told) or "the resources have nothing to complain about"


def fault(received: Received, pem: str, domain: str) -> str:
    """What is wrong with the signature of a message that arrived; "" when it verifies."""
    _, public = keys.describe(pem)
    record = f"v=DKIM1; k=rsa; p={public}".encode()
    names: list[str] = []

    def txt(name: bytes, timeout: int = 5) -> bytes:
        names.append(name.decode().rstrip("."))
        return record

    if not dkim.verify(received.content, dnsfunc=txt):
        return "its DKIM signature does not verify" if names else "it has no DKIM signature"
    return "" if names == [f"{SELECTOR}._domainkey.{domain}"] else f"it is signed by {', '.join(names)}"


async def check(settings: Settings) -> str:
    """What happened, in a line. Raises what failed."""
    marker = secrets.token_hex(8)
    client = AsyncClient(KubeConfig.from_env().get(), timeout=httpx2.Timeout(REQUEST_SECONDS), trust_env=False)
    began = time.monotonic()
    async with client, Sink("0.0.0.0", SINK_PORT) as sink:
        api = Api(client)
        async with made(api, settings):
            await submit(api, settings, marker)
            accepted = time.monotonic()
            try:
                async with asyncio.timeout(ARRIVE_SECONDS):
                    await sink.wait_for(1)
            except TimeoutError:
                raise Permanent(f"accepted, but not delivered within {ARRIVE_SECONDS:.0f} s; {await _told(api, settings)}") from None
            received = sink.messages[0]
            if f"Subject: {marker}".encode() not in received.content:
                raise Permanent("another message arrived")
            if wrong := fault(received, (settings.test_secrets / "tls.key").read_text(), settings.domain):
                raise Permanent(wrong)
            arrived = time.monotonic()
    return f"accepted after {accepted - began:.1f} s, arrived {arrived - accepted:.1f} s later, signed and verified"


def main() -> None:
    """Exit code 0 when the message arrived with a good signature, else 1 and a line that says what is wrong."""
    try:
        print(asyncio.run(check(load(Settings))))
    except PostroomError as error:
        print(f"failed: {error}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
