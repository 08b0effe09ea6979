"""`python -m postroom_cli.clusterpage`: the service page in a cluster, one process for one pool.

It asks the pool's delivery by gRPC under its own identity, `web`, and reads the MailDomains of the pool, whose status has the records to publish.
It writes nothing to the cluster, keeps nothing, and sees no Secret but its certificate and the two tokens, which are mounted as files.
"""

import asyncio
import contextlib
import pathlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import structlog
from lightkube import AsyncClient, KubeConfig
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from postroom_cli.clients import QueueClient
from postroom_core import http, lifecycle, logs, rpc
from postroom_core.clock import SystemClock
from postroom_core.errors import Permanent
from postroom_core.lifecycle import Stopping, supervised
from postroom_core.settings import PREFIX, CommaList, load, split_list
from postroom_insight import check
from postroom_insight.finding import Finding
from postroom_insight.keys import OwnKey
from postroom_insight.lookups import Lookups
from postroom_operator.kube.api import Api
from postroom_operator.kube.cache import EVERYWHERE
from postroom_operator.kube.kinds import MAIL_DOMAIN
from postroom_operator.plan.names import workload
from postroom_web.app import Page, install
from postroom_web.login import Gate, Role
from postroom_web.source import DomainRecord, Source

log = structlog.get_logger(__name__)
Object = dict[str, Any]
# People look at records now and then; a list of a thousand MailDomains is some megabytes.
LOOK_SECONDS = 30.0
REQUEST_SECONDS = 20.0
CANNOT_START = 3
IDENTITY = "delivery"


class Settings(BaseSettings):
    """See the descriptions. The chart sets them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    page_pool: str = Field(min_length=1, max_length=63, description="the workload of the pool, as the label mail.postroom.dev/pool says")
    page_tokens: pathlib.Path = Field(description="folder with the tokens `operator` and `viewer`; read at the start")
    delivery_target: str = Field(min_length=1, description="gRPC target of the pool's delivery")
    grpc_tls: pathlib.Path = Field(description="folder with tls.crt, tls.key, ca.crt of the identity web")
    platform_namespace: str = Field(min_length=1, max_length=63, description="where the pool's workload is")
    watch_namespaces: CommaList = Field(default=(), description="namespaces of the MailDomains; empty is all")
    egress_addresses: CommaList = Field(default=(), description="addresses that mail leaves from, for the checks of SPF, PTR and blocklists")
    resolvers: CommaList = Field(default=(), description="ADDRESS:PORT of DNS resolvers; empty is the system's")
    hostname: str = Field(default="localhost", max_length=253, description="what delivery says in EHLO, for the checks")
    http: str = Field(default="0.0.0.0:2580", description="where the page, metrics and health are served")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="least level that is logged")

    @field_validator("watch_namespaces", "egress_addresses", "resolvers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)


@dataclass
class Domains:
    """The MailDomains of the pool as of the last look."""

    settings: Settings
    known: dict[str, Object] = field(default_factory=dict)

    async def follow(self, api: Api) -> None:
        """For ever; what was seen last stays while the API is away."""
        while True:
            await self.look(api)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, api: Api) -> None:
        found: list[Object] = []
        for namespace in self.settings.watch_namespaces or (EVERYWHERE,):
            found += (await api.list(MAIL_DOMAIN, namespace, {}))[0]
        self.known = {domain["spec"]["domainName"]: domain for domain in found if self._is_ours(domain)}

    def _is_ours(self, domain: Object) -> bool:
        reference = domain["spec"]["poolRef"]
        namespace = reference.get("namespace", domain["metadata"]["namespace"])
        return workload(namespace, reference["name"], self.settings.platform_namespace) == self.settings.page_pool

    def records(self) -> Mapping[str, Sequence[DomainRecord]]:
        return {name: [_record(record) for record in _status(domain).get("dnsRecords", [])] for name, domain in sorted(self.known.items())}

    async def check(self, name: str) -> list[Finding]:
        """What a receiver would ask about the domain."""
        settings = self.settings
        target = check.Target(name, settings.hostname, settings.egress_addresses, own_keys(self.known.get(name, {})))
        return await check.run(target, Lookups(settings.resolvers))


def _status(domain: Object) -> Object:
    found: Object = domain.get("status") or {}
    return found


def _record(record: Object) -> DomainRecord:
    return DomainRecord(record["name"], record["type"], record["value"], record.get("required", False), record.get("purpose", ""))


def own_keys(domain: Object) -> tuple[OwnKey, ...]:
    """The public halves of a domain's DKIM keys, from its status."""
    status = _status(domain)
    values = {record["name"].partition("._domainkey.")[0]: record["value"] for record in status.get("dnsRecords", []) if record["type"] == "TXT"}
    found = []
    for key in status.get("dkim", {}).get("keys", []):
        if (value := values.get(key["selector"])) is not None:
            public = value.partition("p=")[2].partition(";")[0].strip()
            found.append(OwnKey(key["selector"], key["algorithm"], public, value, key["state"] == "Active"))
    return tuple(found)


def tokens(folder: pathlib.Path) -> dict[Role, str]:
    """Raises Permanent when one is missing or too short to be a secret."""
    found = {}
    for role in Role:
        try:
            token = (folder / role.value).read_text().strip()
        except OSError as error:
            raise Permanent(f"no token for the {role.value} in {folder}: {error.strerror}") from error
        if len(token) < 16:
            raise Permanent(f"the {role.value}'s token has fewer than 16 characters")
        found[role] = token
    return found


async def run(settings: Settings, stopping: Stopping) -> None:
    """Until asked to stop. Exits with status 3 and one line when it cannot be served."""
    try:
        async with serving(settings):
            log.info("the page is served", pool=settings.page_pool)
            await stopping.wait()
    except (Permanent, OSError) as error:
        print(f"postroom-page: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_START) from None


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """The page with everything that it asks."""
    gate, domains = Gate(tokens(settings.page_tokens)), Domains(settings)
    async with contextlib.AsyncExitStack() as stack:
        client = AsyncClient(KubeConfig.from_env().get(), timeout=httpx2.Timeout(REQUEST_SECONDS), trust_env=False)
        api = Api(await stack.enter_async_context(client))
        channel = await stack.enter_async_context(rpc.connect(settings.delivery_target, IDENTITY, settings.grpc_tls))
        looking = asyncio.create_task(supervised("MailDomains", lambda: domains.follow(api), pause_seconds=10.0))
        stack.callback(looking.cancel)
        source = Source(lambda: contextlib.nullcontext(QueueClient(channel)), domains.records, domains.check, SystemClock().now_ms)
        app = http.application(lambda: "")
        install(app, Page(source, gate))
        await stack.enter_async_context(http.serve(settings.http, app))
        yield


def main() -> None:
    """Settings from the environment, Kubernetes from the pod's ServiceAccount."""
    settings = load(Settings)
    logs.configure("page", settings.log_level)
    lifecycle.run(lambda stopping: run(settings, stopping))


if __name__ == "__main__":
    main()
