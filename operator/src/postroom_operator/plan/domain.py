"""One MailDomain → the documents of ingress and delivery: who may send what, with which password, how much. Pure; everywhere the same.

What concerns several resources (the pool's existence, a domain or a user name used twice) is the caller's business.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from postroom_core.address import is_domain
from postroom_core.documents import Client, ClientCertificate, Credential, Domain, SenderDomain, ServiceAccount, Verifier
from postroom_operator.plan.findings import Lookup, Passwords, Path, Problem, SecretKey
from postroom_operator.plan.limits import compile_limits
from postroom_operator.plan.webhooks import compile_webhooks
from postroom_operator.resources import Resource

REPORTS = "reports"


@dataclass
class CompiledDomain:
    """A credential or client with a problem is not in the document; one whose Secret or verifier is still to be made neither."""

    document: Domain
    logins: dict[str, tuple[str, SecretKey]] = field(default_factory=dict)  # credential → user name, Secret
    wanted_secrets: list[SecretKey] = field(default_factory=list)
    wanted_verifiers: list[tuple[str, str]] = field(default_factory=list, repr=False)  # user name, password
    problems: list[Problem] = field(default_factory=list)


def pool_of(resource: Resource) -> str:
    """The SendingPool that a MailDomain names, as namespace/name."""
    reference = resource.spec["poolRef"]
    return f"{reference.get('namespace', resource.namespace)}/{reference['name']}"


def sender_domain(resource: Resource, secret: Lookup) -> tuple[SenderDomain, tuple[Problem, ...]]:
    """The document that delivery reads, and what is wrong with what it lacks. `secret` finds the Secrets of webhooks."""
    spec = resource.spec
    problems: list[Problem] = []
    webhooks = compile_webhooks(resource, secret, problems)
    document = SenderDomain(
        name=spec["domainName"],
        tenant=resource.namespace,
        signed="dkim" in spec,
        return_path=return_path(spec),
        pool=pool_of(resource),
        webhooks=webhooks,
    )
    return document, tuple(problems)


def return_path(spec: Mapping[str, Any]) -> str:
    """Where reports come back to; "" is to the sender."""
    found = spec.get("dns", {}).get("returnPath")
    return f"{REPORTS}@{found['label']}.{spec['domainName']}" if found else ""


def compile_domain(resource: Resource, secret: Lookup, passwords: Passwords) -> CompiledDomain:
    """`secret` finds the Secrets of credentials."""
    return _Compiler(resource, secret, passwords).compile()


class _Compiler:
    def __init__(self, resource: Resource, secret: Lookup, passwords: Passwords) -> None:
        self._resource = resource
        self._secret = secret
        self._passwords = passwords
        self._domain: str = resource.spec["domainName"]
        self._problems: list[Problem] = []
        self._compiled = CompiledDomain(Domain(name=self._domain, tenant=resource.namespace, pool=pool_of(resource), active=False, signed=False))

    def compile(self) -> CompiledDomain:
        spec = self._resource.spec
        credentials = [self._credential(index, credential) for index, credential in enumerate(spec.get("credentials", []))]
        clients = [self._client(index, client) for index, client in enumerate(spec.get("clients", []))]
        self._compiled.document = self._compiled.document.model_copy(
            update={
                "active": spec["sendingState"] == "Active",
                "signed": "dkim" in spec,
                "return_path": return_path(spec),
                "credentials": tuple(credential for credential in credentials if credential is not None),
                "clients": tuple(client for client in clients if client is not None),
                "limits": compile_limits(spec.get("limits", {}), ("limits",), self._problems),
            }
        )
        self._compiled.problems = self._problems
        return self._compiled

    def _problem(self, path: Path, text: str) -> None:
        self._problems.append(Problem(path, text))

    def _senders(self, path: Path, patterns: list[str]) -> tuple[str, ...]:
        for pattern in patterns:
            host = pattern.rpartition("@")[2]
            if not is_domain(host) or (host != self._domain and not host.endswith(f".{self._domain}")):
                self._problem((*path, "allowedSenders"), f"{pattern} is outside of {self._domain}")
        return tuple(patterns)

    def _networks(self, path: Path, cidrs: list[str]) -> tuple[str, ...]:
        for cidr in cidrs:
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                self._problem(path, str(error))
        return tuple(cidrs)

    def _client(self, index: int, client: dict[str, Any]) -> Client | None:
        path, before = ("clients", index), len(self._problems)
        senders = self._senders(path, client["allowedSenders"])
        networks = self._networks((*path, "cidrs"), client["cidrs"])
        return Client(name=client["name"], cidrs=networks, allowed_senders=senders) if len(self._problems) == before else None

    def _credential(self, index: int, credential: dict[str, Any]) -> Credential | None:
        path, before = ("credentials", index), len(self._problems)
        senders = self._senders(path, credential["allowedSenders"])
        networks = self._networks((*path, "allowedSourceCIDRs"), credential.get("allowedSourceCIDRs", []))
        priorities = self._priorities(path, credential.get("allowedPriorities"))
        limits = compile_limits(credential.get("limits", {}), (*path, "limits"), self._problems)
        certificate = self._certificate(path, credential.get("clientCertificate"))
        accounts = tuple(
            ServiceAccount(namespace=account.get("namespace", self._resource.namespace), name=account["name"])
            for account in credential.get("serviceAccounts", [])
        )
        login = self._login(path, credential)
        if login is None or len(self._problems) > before:
            return None
        return Credential(
            name=credential["name"],
            username=login[0],
            verifiers=login[1],
            allowed_senders=senders,
            allowed_source_cidrs=networks,
            priorities=priorities,
            service_accounts=accounts,
            client_certificate=certificate,
            limits=limits,
        )

    def _priorities(self, path: Path, allowed: dict[str, int] | None) -> tuple[int, int] | None:
        if allowed is None:
            return None
        if allowed["min"] > allowed["max"]:
            self._problem((*path, "allowedPriorities"), "min exceeds max")
        return allowed["min"], allowed["max"]

    def _login(self, path: Path, credential: dict[str, Any]) -> tuple[str, tuple[Verifier, ...]] | None:
        """User name and verifiers; None while the Secret or a verifier is still to be made, or with a problem."""
        if "secretRef" not in credential:
            if not credential.get("serviceAccounts") and "clientCertificate" not in credential:
                self._problem(path, "one of secretRef, serviceAccounts and clientCertificate is needed: how else could it be proven")
            return f"{credential['name']}@{self._domain}", ()
        key = (self._resource.namespace, credential["secretRef"]["name"])
        secret = self._secret(key)
        if secret is None:
            self._compiled.wanted_secrets.append(key)
            return None
        username, password = secret.data.get("username", ""), secret.data.get("password", "")
        if not username or not password:
            self._problem((*path, "secretRef"), f"the Secret {key[1]} has no username or no password")
            return None
        self._compiled.logins[credential["name"]] = (username, key)
        verifiers = self._verifiers(username, [password, *filter(None, [secret.data.get("previousPassword")])])
        return (username, verifiers) if verifiers else None

    def _verifiers(self, username: str, passwords: list[str]) -> tuple[Verifier, ...]:
        """Of every password that is valid now, the newest first; empty while one is still to be made."""
        found = [self._passwords.verifiers.get((username, password)) for password in passwords]
        self._compiled.wanted_verifiers += [(username, password) for password, verifier in zip(passwords, found, strict=True) if verifier is None]
        ready = tuple(verifier for verifier in found if verifier is not None)
        return (*ready, *self._passwords.previous.get(username, ())) if len(ready) == len(passwords) else ()

    def _certificate(self, path: Path, wanted: dict[str, Any] | None) -> ClientCertificate | None:
        if wanted is None:
            return None
        name = wanted["authorityRef"]["name"]
        secret = self._secret((self._resource.namespace, name))
        try:
            authorities = x509.load_pem_x509_certificates((secret.data.get("ca.crt", "") if secret is not None else "").encode())
        except ValueError:
            self._problem((*path, "clientCertificate", "authorityRef"), f"no Secret {name} with certificates in PEM under ca.crt")
            return None
        pem = "".join(authority.public_bytes(Encoding.PEM).decode() for authority in authorities)
        return ClientCertificate(authorities=pem, names=tuple(wanted["names"]))
