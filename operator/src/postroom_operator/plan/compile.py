"""Compiles resources to directory documents. Pure: (resources, observed) → plan; what is missing is said, and whoever runs the plan makes it.

Level-triggered: the caller makes what `wanted_*` names, observes again and plans again, until nothing is wanted.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from postroom_core.address import is_domain
from postroom_core.documents import (
    AnyDocument,
    Certificate,
    Client,
    Credential,
    DestinationLimit,
    Domain,
    DomainLimits,
    KeySet,
    Pool,
    Retry,
    Route,
    SigningKey,
    SmartHost,
    Verifier,
)
from postroom_operator.plan import dns, durations, keys
from postroom_operator.plan.keys import StoredKey
from postroom_operator.resources import Resource, Resources, Secret

SecretKey = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there: generated keys by domain, generated secrets, verifiers by (user name, password), the listeners' certificate."""

    keys: Mapping[str, tuple[StoredKey, ...]] = field(default_factory=dict)
    secrets: Mapping[SecretKey, Secret] = field(default_factory=dict)
    verifiers: Mapping[tuple[str, str], Verifier] = field(default_factory=dict, repr=False)
    certificate: Certificate | None = None


@dataclass
class Plan:
    """What every consumer gets, what is still to be made, and what is wrong. With problems nothing may be put in force."""

    ingress: list[AnyDocument] = field(default_factory=list)
    signer: list[AnyDocument] = field(default_factory=list)
    delivery: list[AnyDocument] = field(default_factory=list)
    wanted_keys: list[tuple[str, str, str]] = field(default_factory=list)  # domain, algorithm, selector prefix
    wanted_secrets: list[tuple[SecretKey, str]] = field(default_factory=list)  # Secret, domain
    wanted_verifiers: list[tuple[str, str]] = field(default_factory=list, repr=False)  # user name, password
    records: dict[str, tuple[dns.DnsRecord, ...]] = field(default_factory=dict)
    credentials: list[tuple[str, str, SecretKey]] = field(default_factory=list)  # domain, user name, Secret
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def compile_resources(resources: Resources, observed: Observed) -> Plan:
    """The plan for everything."""
    plan = Plan(problems=list(resources.problems))
    compiler = _Compiler(resources, observed, plan)
    for pool in resources.pools:
        compiler.pool(pool)
    for domain in resources.domains:
        compiler.domain(domain)
    if observed.certificate is not None:
        plan.ingress.append(observed.certificate)
    if not resources.domains and not plan.problems:
        plan.problems.append("no MailDomain in the resources; postroom init writes a first one")
    return plan


def pool_name(resource: Resource) -> str:
    """namespace/name, unique over the platform."""
    return f"{resource.namespace}/{resource.name}"


class _Compiler:
    def __init__(self, resources: Resources, observed: Observed, plan: Plan) -> None:
        self._resources = resources
        self._observed = observed
        self._plan = plan
        self._pools = {pool_name(pool) for pool in resources.pools}
        self._domains: dict[str, Resource] = {}
        self._usernames: dict[str, str] = {}

    def _problem(self, resource: Resource, path: tuple[str | int, ...], text: str) -> None:
        self._plan.problems.append(resource.where.problem(("spec", *path), text))

    def _secret(self, key: SecretKey) -> Secret | None:
        return self._resources.secrets.get(key) or self._observed.secrets.get(key)

    # SendingPool

    def pool(self, resource: Resource) -> None:
        spec = resource.spec
        retry, backoff = spec["retry"], spec["retry"]["backoff"]
        times = Retry(
            max_age=durations.seconds(retry["maxAge"]), initial=durations.seconds(backoff["initial"]), maximum=durations.seconds(backoff["max"])
        )
        if times.initial < 1 or times.maximum < times.initial:
            self._problem(resource, ("retry", "backoff"), "initial must be at least 1s and not longer than max")
        limits = [
            DestinationLimit(
                name=limit["name"],
                match=tuple(match.lower() for match in limit["match"]),
                max_connections=limit["maxConnections"],
                messages_per_second=limit.get("messagesPerSecond"),
                messages_per_connection=limit["messagesPerConnection"],
            )
            for limit in spec.get("destinationLimits", [])
        ]
        routes = [self._route(resource, index, route) for index, route in enumerate(spec.get("routes", []))]
        document = Pool(name=pool_name(resource), retry=times, destination_limits=tuple(limits), routes=tuple(r for r in routes if r is not None))
        self._plan.delivery.append(document)

    def _route(self, resource: Resource, index: int, route: dict[str, Any]) -> Route | None:
        smart = route["smartHost"]
        username = password = None
        if reference := smart.get("credentialsRef"):
            secret = self._secret((resource.namespace, reference["name"]))
            if secret is None or not {"username", "password"} <= secret.data.keys():
                path = ("routes", index, "smartHost", "credentialsRef")
                self._problem(resource, path, f"no Secret {reference['name']} with username and password")
                return None
            username, password = secret.data["username"], secret.data["password"]
        host = SmartHost(host=smart["host"], port=smart["port"], tls=smart["tls"], username=username, password=password)
        return Route(name=route["name"], match=tuple(match.lower() for match in route["match"]), smart_host=host)

    # MailDomain

    def domain(self, resource: Resource) -> None:
        spec = resource.spec
        name = spec["domainName"]
        if (other := self._domains.setdefault(name, resource)) is not resource:
            self._problem(resource, ("domainName",), f"{name} is already the domain of {other.namespace}/{other.name}")
            return
        pool = f"{spec['poolRef'].get('namespace', resource.namespace)}/{spec['poolRef']['name']}"
        if pool not in self._pools:
            self._problem(resource, ("poolRef",), f"there is no SendingPool {pool}")
        credentials = [self._credential(resource, index, credential) for index, credential in enumerate(spec.get("credentials", []))]
        clients = [self._client(resource, index, client) for index, client in enumerate(spec.get("clients", []))]
        self._plan.ingress.append(
            Domain(
                name=name,
                tenant=resource.namespace,
                pool=pool,
                active=spec["sendingState"] == "Active",
                signed="dkim" in spec,
                credentials=tuple(credential for credential in credentials if credential is not None),
                clients=tuple(clients),
                limits=self._limits(resource),
            )
        )
        self._keys(resource)

    def _limits(self, resource: Resource) -> DomainLimits:
        limits = resource.spec.get("limits", {})
        hour, day = limits.get("messagesPerHour"), limits.get("messagesPerDay")
        if hour is not None and day is not None and hour > day:
            self._problem(resource, ("limits", "messagesPerHour"), "messagesPerHour exceeds messagesPerDay")
        return DomainLimits(
            messages_per_hour=hour,
            messages_per_day=day,
            max_message_bytes=limits.get("maxMessageBytes"),
            max_recipients_per_message=limits.get("maxRecipientsPerMessage"),
        )

    def _senders(self, resource: Resource, path: tuple[str | int, ...], patterns: list[str]) -> tuple[str, ...]:
        domain = resource.spec["domainName"]
        for pattern in patterns:
            host = pattern.rpartition("@")[2]
            if not is_domain(host) or (host != domain and not host.endswith(f".{domain}")):
                self._problem(resource, (*path, "allowedSenders"), f"{pattern} is outside of {domain}")
        return tuple(patterns)

    def _networks(self, resource: Resource, path: tuple[str | int, ...], cidrs: list[str]) -> tuple[str, ...]:
        for cidr in cidrs:
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                self._problem(resource, path, str(error))
        return tuple(cidrs)

    def _client(self, resource: Resource, index: int, client: dict[str, Any]) -> Client:
        path = ("clients", index)
        senders = self._senders(resource, path, client["allowedSenders"])
        return Client(name=client["name"], cidrs=self._networks(resource, (*path, "cidrs"), client["cidrs"]), allowed_senders=senders)

    def _credential(self, resource: Resource, index: int, credential: dict[str, Any]) -> Credential | None:
        path = ("credentials", index)
        key = (resource.namespace, credential["secretRef"]["name"])
        senders = self._senders(resource, path, credential["allowedSenders"])
        networks = self._networks(resource, (*path, "allowedSourceCIDRs"), credential.get("allowedSourceCIDRs", []))
        secret = self._secret(key)
        if secret is None:
            self._plan.wanted_secrets.append((key, resource.spec["domainName"]))
            return None
        username, password = secret.data.get("username", ""), secret.data.get("password", "")
        if not username or not password:
            self._problem(resource, (*path, "secretRef"), f"the Secret {key[1]} has no username or no password")
            return None
        holder = f"{pool_name(resource)}/{credential['name']}"
        if self._usernames.setdefault(username, holder) != holder:
            self._problem(resource, (*path, "secretRef"), f"the user name {username} is already used by {self._usernames[username]}")
            return None
        self._plan.credentials.append((resource.spec["domainName"], username, key))
        verifier = self._observed.verifiers.get((username, password))
        if verifier is None:
            self._plan.wanted_verifiers.append((username, password))
            return None
        return Credential(name=credential["name"], username=username, verifiers=(verifier,), allowed_senders=senders, allowed_source_cidrs=networks)

    # DKIM

    def _keys(self, resource: Resource) -> None:
        spec, name = resource.spec, resource.spec["domainName"]
        if "dkim" not in spec:
            self._plan.warnings.append(f"{name}: mail is not signed, because spec.dkim is absent; `dkim: {{}}` signs it")
            self._plan.records[name] = dns.records(name, spec, ())
            return
        found = self._imported(resource) if "importedKeys" in spec["dkim"] else self._generated(name, spec["dkim"])
        signing = tuple(
            SigningKey(selector=key.selector, algorithm="Ed25519" if key.algorithm == "Ed25519" else "RSA2048", private_key=key.private)
            for key in found
            if key.active
        )
        self._plan.signer.append(KeySet(name=name, tenant=resource.namespace, keys=signing))
        self._plan.records[name] = dns.records(name, spec, found)

    def _imported(self, resource: Resource) -> list[StoredKey]:
        found = []
        for index, entry in enumerate(resource.spec["dkim"]["importedKeys"]):
            path = ("dkim", "importedKeys", index, "secretRef")
            secret = self._secret((resource.namespace, entry["secretRef"]["name"]))
            if secret is None or "tls.key" not in secret.data:
                self._problem(resource, path, f"no Secret {entry['secretRef']['name']} with the key tls.key")
                continue
            try:
                algorithm, public = keys.describe(secret.data["tls.key"])
            except ValueError as error:
                self._problem(resource, path, f"tls.key is {error}")
                continue
            found.append(StoredKey(resource.spec["domainName"], entry["selector"], algorithm, public, True, secret.data["tls.key"]))
        return found

    def _generated(self, name: str, dkim: dict[str, Any]) -> list[StoredKey]:
        stored = [key for key in self._observed.keys.get(name, ()) if key.algorithm in dkim["algorithms"]]
        for algorithm in dkim["algorithms"]:
            if algorithm not in {key.algorithm for key in stored}:
                self._plan.wanted_keys.append((name, algorithm, dkim["selectorPrefix"]))
        # Ed25519 alone is not verified everywhere: nothing signs before the RSA record is seen.
        if not any(key.active and key.algorithm == "RSA2048" for key in stored):
            return [replace(key, active=False) for key in stored]
        return stored
