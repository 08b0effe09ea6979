"""One SendingPool: gather, plan, apply, tell. Read this file from `reconcile` downwards and you know what the operator does for a pool."""

from dataclasses import replace

import structlog

from postroom_operator.kube.api import Forbidden
from postroom_operator.kube.kinds import DEPLOYMENT, OPTIONAL, SENDING_POOL
from postroom_operator.plan import autoscaling, conditions, sendingpool
from postroom_operator.plan.domain import pool_of
from postroom_operator.plan.findings import SecretKey
from postroom_operator.plan.names import Object, Owner, decoded, workload
from postroom_operator.plan.pool import compile_pool, pool_name
from postroom_operator.plan.sendingpool import Facts
from postroom_operator.plan.workload import Installation
from postroom_operator.reconcile import credentials
from postroom_operator.reconcile.world import World, owner_of, resource_of
from postroom_operator.resources import Secret

log = structlog.get_logger(__name__)
MANAGER = "postroom-operator-pool"
HANDOVER = "postroom-operator-handover"
CHECK_SECONDS = 300.0


class SendingPools:
    """The reconcile of every SendingPool."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def installation(self) -> Installation:
        settings = self._world.settings
        pairs = tuple((name, value) for name, _, value in (entry.partition("=") for entry in settings.delivery_environment))
        return Installation(
            namespace=settings.platform_namespace,
            release=settings.release,
            image=settings.delivery_image,
            service_account=settings.delivery_service_account or f"{settings.release}-delivery",
            tls_secret=f"{settings.release}-delivery-tls",
            signer_target=f"dns:///{settings.signers}.{settings.platform_namespace}.svc.cluster.local:{settings.signer_port}",
            environment=pairs,
            storage_class=settings.storage_class,
            storage_size=settings.storage_size,
            pull_policy=settings.image_pull_policy,
            pull_secrets=settings.image_pull_secrets,
        )

    async def reconcile(self, namespace: str, name: str) -> float:
        """Seconds until the next look. Raises what the API raises; then it is tried again."""
        found = await self._world.api.get(SENDING_POOL, name, namespace)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return CHECK_SECONDS
        owner = owner_of(found)
        facts = await self._gather(found, owner)
        if facts.uri is not None:
            await self._hand_over(facts)
            await self._world.children.ensure(owner.uid, sendingpool.wanted(facts, self.installation), MANAGER)
            facts = self._as_it_is(facts)
        observed = sendingpool.observe(facts)
        await self._world.tell(SENDING_POOL, found, [conditions.ready(observed, sendingpool.NEEDED), *observed], sendingpool.status(facts))
        return CHECK_SECONDS

    async def finalize(self, namespace: str, name: str, uid: str) -> None:
        """Removes what has no ownerReference; the volume with accepted mail stays."""
        await self._world.children.remove_all(uid)
        log.info("a SendingPool ended", namespace=namespace, name=name)

    async def _gather(self, found: Object, owner: Owner) -> Facts:
        spec = found["spec"]
        uri, why = await self._database(owner, spec)
        secrets, refused = await self._secrets(owner, spec)
        compiled = compile_pool(resource_of(found), secrets.get)
        keda = await self._world.api.served(OPTIONAL["ScaledObject"])
        choice = autoscaling.choose(spec, embedded=uri == "", keda=keda)
        here = pool_name(resource_of(found))
        domains = sum(1 for domain in self._world.resources("MailDomain") if pool_of(resource_of(domain)) == here)
        name = workload(owner.namespace, owner.name, self._world.settings.platform_namespace)
        why = why or refused
        now = self._world.now()
        return self._as_it_is(Facts(owner, name, spec, compiled.document, compiled.problems, uri, why, choice, domains, None, None, now))

    def _as_it_is(self, facts: Facts) -> Facts:
        """With what the cluster has of its workload and autoscaler."""
        kind = autoscaling.KIND.get(facts.choice.provider)
        return replace(facts, workload=self._known(facts.kind, facts.name), autoscaler=self._known(kind, facts.name) if kind else None)

    def _known(self, kind: str, name: str) -> Object | None:
        cache = self._world.caches.of(kind, self._world.settings.platform_namespace)
        return cache.get(self._world.settings.platform_namespace, name) if cache is not None else None

    async def _database(self, owner: Owner, spec: Object) -> tuple[str | None, str]:
        """The database's URI, or why there is none."""
        reference = spec.get("spool", {}).get("secretRef")
        if reference is None:
            return "", ""
        try:
            secret = await credentials.read(self._world, owner.namespace, reference["name"])
        except Forbidden as error:
            return None, f"{error}; give the operator rights on Secrets in {owner.namespace}"
        uri = decoded(secret).get(sendingpool.DATABASE_KEY, "") if secret is not None else ""
        if not uri.startswith(("postgresql://", "postgres://")):
            return None, f"no Secret {reference['name']} with uri: postgresql://…"
        return uri, ""

    async def _secrets(self, owner: Owner, spec: Object) -> tuple[dict[SecretKey, Secret], str]:
        """The Secrets of smart hosts; one that cannot be read is a problem of its route."""
        found: dict[SecretKey, Secret] = {}
        refused = ""
        for route in spec.get("routes", []):
            reference = route["smartHost"].get("credentialsRef")
            if reference is None:
                continue
            try:
                secret = await credentials.read(self._world, owner.namespace, reference["name"])
            except Forbidden as error:
                refused = str(error)
                continue
            if secret is not None:
                key = (owner.namespace, reference["name"])
                found[key] = Secret(key[1], key[0], decoded(secret))
        return found, refused

    async def _hand_over(self, facts: Facts) -> None:
        """Keeps the number of replicas while its owner changes from us to an autoscaler: leaving out a field that nobody else owns resets it to 1.

        A second field manager takes the number first; the autoscaler's first write takes it from there.
        """
        known = facts.workload
        if known is None or known["kind"] != "Deployment" or not sendingpool.handover(known, facts.choice.provider):
            return
        metadata = {"name": known["metadata"]["name"], "namespace": known["metadata"]["namespace"]}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": known["spec"]["replicas"]}}
        await self._world.api.apply(DEPLOYMENT, body, HANDOVER)
