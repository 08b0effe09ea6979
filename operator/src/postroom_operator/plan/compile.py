"""Everything of one machine → directory documents. Pure: (resources, observed) → plan; what is missing is said, and whoever runs the plan makes it.

Level-triggered: the caller makes what `wanted_*` names, observes again and plans again, until nothing is wanted. A cluster compiles each
resource by itself, with the same `compile_domain` and `compile_pool`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from postroom_core.documents import AnyDocument, Certificate, KeySet, SigningKey, Verifier
from postroom_operator.plan import dns, keys
from postroom_operator.plan.certificates import Wanted, compile_certificate
from postroom_operator.plan.domain import compile_domain, pool_of, sender_domain
from postroom_operator.plan.findings import Passwords, Problem, SecretKey
from postroom_operator.plan.keys import StoredKey
from postroom_operator.plan.pool import compile_pool, pool_name
from postroom_operator.resources import Resource, Resources, Secret


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there: generated keys by domain, generated secrets, verifiers by (user name, password), the listeners' certificate."""

    keys: Mapping[str, tuple[StoredKey, ...]] = field(default_factory=dict)
    secrets: Mapping[SecretKey, Secret] = field(default_factory=dict)
    verifiers: Mapping[tuple[str, str], Verifier] = field(default_factory=dict, repr=False)
    certificate: Certificate | None = None
    host: dns.Host = field(default_factory=dns.Host)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)  # self-signed ones of MailDomains, by name


@dataclass
class Plan:
    """What every consumer gets, what is still to be made, and what is wrong. With problems nothing may be put in force."""

    ingress: list[AnyDocument] = field(default_factory=list)
    signer: list[AnyDocument] = field(default_factory=list)
    delivery: list[AnyDocument] = field(default_factory=list)
    wanted_keys: list[tuple[str, str, str]] = field(default_factory=list)  # domain, algorithm, selector prefix
    wanted_secrets: list[tuple[SecretKey, str]] = field(default_factory=list)  # Secret, domain
    wanted_verifiers: list[tuple[str, str]] = field(default_factory=list, repr=False)  # user name, password
    wanted_certificates: list[Wanted] = field(default_factory=list)
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


class _Compiler:
    def __init__(self, resources: Resources, observed: Observed, plan: Plan) -> None:
        self._resources = resources
        self._observed = observed
        self._plan = plan
        self._pools = {pool_name(pool) for pool in resources.pools}
        self._domains: dict[str, Resource] = {}
        self._usernames: dict[str, str] = {}
        self._hostnames: dict[str, str] = {}

    def _problem(self, resource: Resource, problem: Problem) -> None:
        self._plan.problems.append(resource.where.problem(("spec", *problem.path), problem.text))

    def _secret(self, key: SecretKey) -> Secret | None:
        return self._resources.secrets.get(key) or self._observed.secrets.get(key)

    def pool(self, resource: Resource) -> None:
        compiled = compile_pool(resource, self._secret)
        for problem in compiled.problems:
            self._problem(resource, problem)
        self._plan.delivery.append(compiled.document)

    def domain(self, resource: Resource) -> None:
        name = resource.spec["domainName"]
        if (other := self._domains.setdefault(name, resource)) is not resource:
            self._problem(resource, Problem(("domainName",), f"{name} is already the domain of {other.namespace}/{other.name}"))
            return
        if (pool := pool_of(resource)) not in self._pools:
            self._problem(resource, Problem(("poolRef",), f"there is no SendingPool {pool}"))
        compiled = compile_domain(resource, self._secret, Passwords(self._observed.verifiers))
        for problem in compiled.problems:
            self._problem(resource, problem)
        self._plan.wanted_secrets += [(key, name) for key in compiled.wanted_secrets]
        self._plan.wanted_verifiers += compiled.wanted_verifiers
        self._plan.ingress.append(compiled.document)
        sender, problems = sender_domain(resource, self._secret)
        for problem in problems:
            self._problem(resource, problem)
        self._plan.delivery.append(sender)
        self._logins(resource, compiled.logins)
        self._keys(resource)
        self._certificate(resource)

    def _certificate(self, resource: Resource) -> None:
        for hostname in resource.spec.get("tls", {}).get("hostnames", ()):
            if (holder := self._hostnames.setdefault(hostname, pool_name(resource))) != pool_name(resource):
                self._problem(resource, Problem(("tls", "hostnames"), f"{hostname} is already a host name of {holder}"))
        match compile_certificate(resource, self._secret, self._observed.certificates):
            case Certificate() as certificate:
                self._plan.ingress.append(certificate)
            case Wanted() as wanted:
                self._plan.wanted_certificates.append(wanted)
            case Problem() as problem:
                self._problem(resource, problem)

    def _logins(self, resource: Resource, logins: Mapping[str, tuple[str, SecretKey]]) -> None:
        for credential, (username, key) in logins.items():
            holder = f"{pool_name(resource)}/{credential}"
            if self._usernames.setdefault(username, holder) != holder:
                index = [entry["name"] for entry in resource.spec["credentials"]].index(credential)
                path = ("credentials", index, "secretRef")
                self._problem(resource, Problem(path, f"the user name {username} is already used by {self._usernames[username]}"))
            else:
                self._plan.credentials.append((resource.spec["domainName"], username, key))

    # DKIM

    def _keys(self, resource: Resource) -> None:
        spec, name = resource.spec, resource.spec["domainName"]
        if "dkim" not in spec:
            self._plan.warnings.append(f"{name}: mail is not signed, because spec.dkim is absent; `dkim: {{}}` signs it")
            self._plan.records[name] = dns.records(name, spec, (), self._observed.host)
            return
        found = self._imported(resource) if "importedKeys" in spec["dkim"] else self._generated(name, spec["dkim"])
        signing = tuple(
            SigningKey(selector=key.selector, algorithm="Ed25519" if key.algorithm == "Ed25519" else "RSA2048", private_key=key.private)
            for key in found
            if key.active
        )
        self._plan.signer.append(KeySet(name=name, tenant=resource.namespace, keys=signing))
        self._plan.records[name] = dns.records(name, spec, found, self._observed.host)

    def _imported(self, resource: Resource) -> list[StoredKey]:
        found = []
        for index, entry in enumerate(resource.spec["dkim"]["importedKeys"]):
            path = ("dkim", "importedKeys", index, "secretRef")
            secret = self._secret((resource.namespace, entry["secretRef"]["name"]))
            if secret is None or "tls.key" not in secret.data:
                self._problem(resource, Problem(path, f"no Secret {entry['secretRef']['name']} with the key tls.key"))
                continue
            try:
                algorithm, public = keys.describe(secret.data["tls.key"])
            except ValueError as error:
                self._problem(resource, Problem(path, f"tls.key is {error}"))
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
