"""One MailDomain: gather, plan, apply, tell. Read this file from `reconcile` downwards and you know what the operator does for a domain."""

from datetime import timedelta

import structlog

from postroom_operator.kube.api import Forbidden
from postroom_operator.kube.kinds import MAIL_DOMAIN, NAMESPACE, OPTIONAL
from postroom_operator.plan import admission, conditions, dns, durations, keysecrets, maildomain
from postroom_operator.plan.conditions import Condition
from postroom_operator.plan.credentials import BASIC_AUTH, dump
from postroom_operator.plan.dkim import IDLE_CHECK, Key, Policy, Rotation, State
from postroom_operator.plan.domain import compile_domain, sender_domain
from postroom_operator.plan.findings import Problem
from postroom_operator.plan.maildomain import Facts
from postroom_operator.plan.names import KEY_TYPE, Object, Owner, decoded, workload
from postroom_operator.reconcile import credentials, keys, retained, tls
from postroom_operator.reconcile.world import World, owner_of, resource_of

log = structlog.get_logger(__name__)
MANAGER = "postroom-operator-maildomain"
# What is made once and then has a life of its own; never pruned while the MailDomain is there.
KEPT = (KEY_TYPE, BASIC_AUTH)
# Ingress reads a change within 2 s; one that does not answer is about to leave, or to come.
ACKNOWLEDGE, SILENT = timedelta(seconds=2), timedelta(seconds=30)


class MailDomains:
    """The reconcile of every MailDomain."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def reconcile(self, namespace: str, name: str) -> float:
        """Seconds until the next look. Raises what the API raises; then it is tried again."""
        found = await self._world.api.get(MAIL_DOMAIN, name, namespace)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return IDLE_CHECK.total_seconds()
        owner = owner_of(found)
        pool = self._pool(found)
        accepted = admission.decide(found, self._rivals(found), pool, self._tenants(pool), await self._labels(namespace, pool))
        if accepted.status != "True" or pool is None:
            return await self._refuse(found, accepted)
        await retained.take_over(self._world, owner, found["spec"]["domainName"])
        facts, policy, wake_in = await self._gather(found, owner, pool)
        problems = [problem for problem in facts.compiled.problems if problem.path[0] != "credentials"]
        if problems:
            return await self._refuse(found, Condition("Accepted", "False", "Invalid", "; ".join(map(str, problems))))
        await self._world.children.ensure(owner.uid, maildomain.wanted(facts, self._world.places), MANAGER, KEPT)
        observed = maildomain.observe(facts)
        await self._world.tell(MAIL_DOMAIN, found, [conditions.ready(observed, maildomain.NEEDED), *observed], maildomain.status(facts, policy))
        return max(0.05, wake_in.total_seconds())

    async def finalize(self, namespace: str, name: str, uid: str) -> None:
        """Removes what has no ownerReference, or leaves keys and records to a successor; safe to repeat."""
        found = await self._world.api.get(MAIL_DOMAIN, name, namespace)
        if found is not None and found["metadata"]["uid"] == uid and found["spec"].get("deletionPolicy") == maildomain.RETAIN:
            await retained.retain(self._world, owner_of(found), found["spec"]["domainName"])
        await self._world.children.remove_all(uid)
        self._world.lookout.forget(uid)
        self._world.held.pop(uid, None)
        for username in [username for username, holder in self._world.usernames.items() if holder == uid]:
            del self._world.usernames[username]
        log.info("a MailDomain ended", namespace=namespace, name=name)

    async def _refuse(self, found: Object, accepted: Condition) -> float:
        """Nothing is in force for it; its keys stay until it is deleted."""
        owner = owner_of(found)
        await self._world.children.ensure(owner.uid, [], MANAGER, KEPT)
        observed = maildomain.refused(accepted)
        await self._world.tell(MAIL_DOMAIN, found, [conditions.ready(observed, maildomain.NEEDED), *observed], {})
        return IDLE_CHECK.total_seconds()

    # What admission asks

    def _pool(self, found: Object) -> Object | None:
        reference = found["spec"]["poolRef"]
        place = (reference.get("namespace", found["metadata"]["namespace"]), reference["name"])
        cache = self._world.caches.of("SendingPool", place[0])
        return cache.get(*place) if cache is not None else None

    def _rivals(self, found: Object) -> list[Object]:
        name, uid = found["spec"]["domainName"], found["metadata"]["uid"]
        everybody = self._world.resources("MailDomain")
        return [
            other
            for other in everybody
            if other["spec"]["domainName"] == name and other["metadata"]["uid"] != uid and "deletionTimestamp" not in other["metadata"]
        ]

    def _tenants(self, pool: Object | None) -> list[str]:
        """Namespaces that use a pool which is for one alone, in the order in which they came; of others nobody asks."""
        if pool is None or pool["spec"].get("sharing") != "Dedicated":
            return []
        place = (pool["metadata"]["namespace"], pool["metadata"]["name"])
        users = [other for other in self._world.resources("MailDomain") if _place(other) == place]
        users.sort(key=lambda other: (other["metadata"]["creationTimestamp"], other["metadata"]["uid"]))
        return list(dict.fromkeys(other["metadata"]["namespace"] for other in users))

    async def _labels(self, namespace: str, pool: Object | None) -> dict[str, str]:
        rule = pool["spec"].get("domains", {}).get("namespaces", {}) if pool is not None else {}
        if rule.get("from") != "Selector":
            return {}
        found = await self._world.api.get(NAMESPACE, namespace)
        return dict(found["metadata"].get("labels", {})) if found is not None else {}

    # What the plan asks

    async def _gather(self, found: Object, owner: Owner, pool: Object) -> tuple[Facts, Policy | None, timedelta]:
        world, spec = self._world, found["spec"]
        gathered = await credentials.gather(world, owner, spec)
        compiled = compile_domain(resource_of(found), gathered.secrets.get, gathered.passwords)
        senders, webhook_problems = sender_domain(resource_of(found), gathered.secrets.get)
        metadata = pool["metadata"]
        target = world.places.delivery_target(metadata["namespace"], metadata["name"])
        generation = found["metadata"]["generation"]
        compiled.document = compiled.document.model_copy(update={"delivery_target": target, "generation": generation})
        acknowledged, patience = await self._acknowledged(found)
        rotation = policy = keyset = None
        stored: list[Object] = []
        if "dkim" in spec:
            policy = self._policy(spec, pool)
            rotation = await self._rotate(found, owner, policy, gathered)
            stored = keys.secrets_of(world, owner.uid)
            keyset = keysecrets.keyset(spec["domainName"], owner.namespace, rotation, stored)
        records = self._records(spec, rotation, stored)
        every = _freshness(rotation, policy)
        seen = world.lookout.seen(owner.uid, [*records, *self._ending(spec, rotation, stored)], every)
        served = await world.api.served(OPTIONAL["DNSEndpoint"]) and spec.get("dns", {}).get("provider") != "Manual"
        cert_manager = await world.api.served(OPTIONAL["Certificate"])
        facts = Facts(
            owner=owner,
            spec=spec,
            compiled=compiled,
            state=dump(gathered.held),
            missing=tuple(gathered.missing),
            rotation=rotation,
            keyset=keyset,
            records=records,
            seen=seen,
            external_dns=served,
            cert_manager=cert_manager,
            certificate=await tls.find(world, owner, found, cert_manager=cert_manager),
            pool=workload(metadata["namespace"], metadata["name"], world.settings.platform_namespace),
            senders=senders,
            webhook_problems=webhook_problems,
            acknowledged=acknowledged,
            nameless=self._world.host.nameless,
            before=found.get("status", {}),
        )
        wake_in = min(gathered.wake_in, every, patience, rotation.wake_in if rotation is not None else IDLE_CHECK)
        return facts, policy, wake_in

    async def _acknowledged(self, found: Object) -> tuple[int | None, timedelta]:
        """The generation that is in force at every ingress, and when to ask again: not in the reconcile that has still to write it."""
        status, generation = found.get("status", {}), found["metadata"]["generation"]
        before: int | None = status.get("limitsGeneration")
        if before == generation:
            return before, IDLE_CHECK
        if status.get("observedGeneration") != generation:
            return before, ACKNOWLEDGE / 2
        answer = await self._world.ingresses.acknowledged(found["spec"]["domainName"])
        if answer is None or answer < 0:
            return before, IDLE_CHECK if answer is None else SILENT
        return answer or before, IDLE_CHECK if answer == generation else ACKNOWLEDGE

    def _policy(self, spec: Object, pool: Object) -> Policy:
        settings = self._world.settings
        max_age = durations.seconds(pool["spec"]["retry"]["maxAge"])
        trusted = {"check": settings.dns_check_seconds, "settle": settings.dns_settle_seconds}
        return maildomain.policy(spec, max_age, trusted, may_rotate=self._world.rotations.left(self._world.now()))

    async def _rotate(self, found: Object, owner: Owner, policy: Policy, gathered: credentials.Gathered) -> Rotation:
        spec = found["spec"]
        for index, entry in enumerate(spec["dkim"].get("importedKeys", [])):
            await self._import(owner, spec["domainName"], (index, entry), gathered)
        stored = keys.secrets_of(self._world, owner.uid)
        known = self._records(spec, None, stored, [keysecrets.from_secret(secret) for secret in stored])
        seen = self._world.lookout.seen(owner.uid, known, policy.check_every if _waits(stored) else IDLE_CHECK)
        by_selector = {name.partition("._domainkey.")[0]: look for (name, _), look in seen.items()}
        return await keys.advance_keys(self._world, owner, spec["domainName"], spec["dkim"]["selectorPrefix"], (policy, by_selector))

    async def _import(self, owner: Owner, domain: str, numbered: tuple[int, Object], gathered: credentials.Gathered) -> None:
        index, entry = numbered
        name = entry["secretRef"]["name"]
        try:
            secret = await credentials.read(self._world, owner.namespace, name)
            pem = decoded(secret).get("tls.key") if secret is not None else None
            if pem is None:
                gathered.missing.append(f"no Secret {name} with the key tls.key, for the imported DKIM key {entry['selector']}")
            else:
                await keys.import_key(self._world, owner, domain, entry["selector"], pem)
        except Forbidden as error:
            gathered.missing.append(f"Secret {name}: {error}")
        except ValueError as error:
            gathered.missing.append(str(Problem(("dkim", "importedKeys", index, "secretRef"), f"tls.key is {error}")))

    def _records(self, spec: Object, rotation: Rotation | None, stored: list[Object], given: list[Key] | None = None) -> tuple[dns.DnsRecord, ...]:
        """The records wanted for the keys of a rotation, or for all `given` keys."""
        domain, secrets = spec["domainName"], keysecrets.by_selector(stored)
        chosen = given if given is not None else list(maildomain.in_dns(rotation)) if rotation is not None else []
        here = [keysecrets.stored_key(domain, key, secrets[key.selector]) for key in chosen if key.selector in secrets]
        return dns.records(domain, spec, sorted(here, key=lambda key: key.selector), self._world.host)

    def _ending(self, spec: Object, rotation: Rotation | None, stored: list[Object]) -> list[dns.DnsRecord]:
        """The records of revoked keys: looked at until they are gone."""
        revoked = [key for key in rotation.keys if key.state == State.REVOKED] if rotation is not None else []
        return [record for record in self._records(spec, None, stored, revoked) if record.required]


def _place(found: Object) -> tuple[str, str]:
    reference = found["spec"]["poolRef"]
    return reference.get("namespace", found["metadata"]["namespace"]), reference["name"]


def _waits(stored: list[Object]) -> bool:
    return any(keysecrets.from_secret(secret).state in (State.PUBLISHING, State.PUBLISHED, State.REVOKED) for secret in stored)


def _freshness(rotation: Rotation | None, policy: Policy | None) -> timedelta:
    """How old a look at DNS may be."""
    if rotation is None or policy is None or all(key.state in (State.ACTIVE, State.RETIRING) for key in rotation.keys):
        return IDLE_CHECK
    return policy.check_every
