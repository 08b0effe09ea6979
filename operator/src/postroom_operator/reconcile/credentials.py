"""Credentials of one MailDomain: reads the tenant's Secrets, makes absent ones, renews passwords, derives verifiers. Passwords stop here."""

import base64
import secrets as random
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from postroom_core.documents import Verifier
from postroom_core.errors import Transient
from postroom_operator import verifiers
from postroom_operator.kube.api import Conflict, Forbidden
from postroom_operator.kube.kinds import SECRET
from postroom_operator.plan import credentials as plan
from postroom_operator.plan import directory
from postroom_operator.plan.credentials import Held
from postroom_operator.plan.findings import Passwords, SecretKey
from postroom_operator.plan.names import CREDENTIAL, Object, Owner, bounded, decoded
from postroom_operator.plan.webhooks import KEYS
from postroom_operator.reconcile import hardwork
from postroom_operator.reconcile.world import World
from postroom_operator.resources import Secret

log = structlog.get_logger(__name__)
PASSWORD_OCTETS = 24  # 192 bits
# A Secret that is not there yet has no label, so nobody hears when it comes: it is looked for again.
ABSENT = timedelta(seconds=15)
LABELLER = "postroom-operator-label"


@dataclass
class Gathered:
    """What the plan needs of a tenant's Secrets."""

    secrets: dict[SecretKey, Secret] = field(default_factory=dict, repr=False)
    verifiers: dict[tuple[str, str], Verifier] = field(default_factory=dict, repr=False)
    previous: dict[str, tuple[Verifier, ...]] = field(default_factory=dict, repr=False)
    held: dict[str, Held] = field(default_factory=dict, repr=False)
    missing: list[str] = field(default_factory=list)
    wake_in: timedelta = timedelta(hours=1)

    @property
    def passwords(self) -> Passwords:
        return Passwords(self.verifiers, self.previous)


async def read(world: World, namespace: str, name: str) -> Object | None:
    """A tenant's Secret, from the watch when it is there, else by name. Raises Forbidden."""
    cache = world.caches.of("Secret", namespace)
    found = cache.get(namespace, name) if cache is not None else None
    return found if found is not None else await world.api.get(SECRET, name, namespace)


async def labelled(world: World, secret: Object) -> Object:
    """Marks a tenant's own Secret, so that a change of it is seen at once; nothing else of it is touched."""
    metadata = secret["metadata"]
    if CREDENTIAL in (metadata.get("labels") or {}):
        return secret
    identity = {"name": metadata["name"], "namespace": metadata["namespace"], "labels": {CREDENTIAL: "true"}}
    return await world.api.apply(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": identity}, LABELLER)


async def gather(world: World, owner: Owner, spec: Object) -> Gathered:
    """Everything about the credentials of a MailDomain."""
    gathered = Gathered()
    known = _known(world, owner.uid, spec["domainName"])
    for entry in spec.get("credentials", []):
        if "clientCertificate" in entry:
            await _authority(world, owner, entry["clientCertificate"]["authorityRef"]["name"], gathered)
        if "secretRef" not in entry:
            continue
        try:
            secret = await _ensured(world, owner, spec["domainName"], entry)
        except Forbidden as error:
            where = f"{owner.namespace}/{entry['secretRef']['name']}"
            told = f"give the operator rights on Secrets in {owner.namespace} (credentialNamespaces of the chart)"
            gathered.missing.append(f"Secret {where}: {error}; {told}")
            continue
        await _take(world, owner, entry, (secret, known.get(entry["name"])), gathered)
    for entry in spec.get("webhooks", []):
        await _webhook(world, owner, entry["secretRef"]["name"], gathered)
    world.held[owner.uid] = gathered.held
    return gathered


def _known(world: World, uid: str, domain: str) -> dict[str, Held]:
    """What was kept beside the directory document, or is remembered while that is away."""
    cache = world.caches.of("Secret", world.settings.platform_namespace)
    name = bounded(f"domain-{domain}")
    found = cache.get(world.settings.platform_namespace, name) if cache is not None else None
    return plan.load(decoded(found).get(directory.STATE, "")) if found is not None else world.held.get(uid, {})


async def _ensured(world: World, owner: Owner, domain: str, entry: Object) -> Object:
    """The Secret of a credential: made when absent, renewed when due, and labelled so that a change of it is seen at once."""
    name = entry["secretRef"]["name"]
    secret = await read(world, owner.namespace, name)
    if secret is None:
        password = random.token_urlsafe(PASSWORD_OCTETS)
        body = plan.generated_secret(owner, name, f"{name}@{domain}", password, world.now())
        try:
            secret = await world.api.create(SECRET, body)
        except Conflict as error:
            raise Transient(f"Secret {owner.namespace}/{name} has just been made") from error
        log.info("a credential's Secret was made", secret=f"{owner.namespace}/{name}")
    secret = await labelled(world, secret)
    due = plan.renewal(entry, secret, world.now())
    if due is not None and due <= timedelta():
        patch = plan.renewed_password(secret, random.token_urlsafe(PASSWORD_OCTETS), world.now())
        secret = await world.api.merge(SECRET, name, owner.namespace, patch)
        log.info("a generated password was renewed", secret=f"{owner.namespace}/{name}")
    cache = world.caches.of("Secret", owner.namespace)
    if cache is not None:
        cache.put(secret)
    return secret


async def _take(world: World, owner: Owner, entry: Object, found: tuple[Object, Held | None], gathered: Gathered) -> None:
    secret, held = found
    data = decoded(secret)
    key = (owner.namespace, entry["secretRef"]["name"])
    gathered.secrets[key] = Secret(key[1], key[0], data)
    username, password = data.get("username", ""), data.get("password", "")
    if not username or not password:
        return  # the plan says so
    if world.usernames.setdefault(username, owner.uid) != owner.uid:
        gathered.missing.append(f"Secret {key[1]}: the user name {username} is taken; user names are unique over the platform")
        del gathered.secrets[key]
        return
    now, source = world.now(), plan.source_of(secret)
    if held is None or held.source != source:
        verifier = await _derive(password, plan.salt_of(held, username))
        held = plan.renewed(held, source, (username, verifier, await _given(data, verifier)), plan.overlap_of(entry), now)
    held = gathered.held[entry["name"]] = plan.without_expired(held, now)
    gathered.verifiers[(username, password)] = held.verifier
    if held.given is not None:
        gathered.verifiers[(username, data["previousPassword"])] = held.given
    gathered.previous[username] = tuple(verifier for verifier, _ in held.previous)
    moments = [until - now for _, until in held.previous]
    due = plan.renewal(entry, secret, now)
    gathered.wake_in = min([gathered.wake_in, *moments, *([due] if due is not None else [])])


async def _derive(password: str, salt: bytes | None) -> Verifier:
    """The only way to a verifier, whosever password it is."""
    return await hardwork.done(lambda: verifiers.derive(password, salt))


async def _given(data: dict[str, str], verifier: Verifier) -> Verifier | None:
    """Of a Secret's previousPassword, with the salt of the password's."""
    former = data.get("previousPassword", "")
    return await _derive(former, base64.b64decode(verifier.scram.salt)) if former else None


async def _authority(world: World, owner: Owner, name: str, gathered: Gathered) -> None:
    """The Secret with the authorities of client certificates."""
    try:
        secret = await read(world, owner.namespace, name)
    except Forbidden as error:
        gathered.missing.append(f"Secret {owner.namespace}/{name}: {error}")
        return
    if secret is not None:
        gathered.secrets[owner.namespace, name] = Secret(name, owner.namespace, {"ca.crt": decoded(secret).get("ca.crt", "")})


async def _webhook(world: World, owner: Owner, name: str, gathered: Gathered) -> None:
    """The Secret that signs a webhook. One that is absent or may not be read is told by the plan: mail does not wait for it."""
    try:
        secret = await read(world, owner.namespace, name)
    except Forbidden as error:
        log.warning("the Secret of a webhook cannot be read", secret=f"{owner.namespace}/{name}", reason=str(error))
        return
    if secret is not None:
        data = decoded(await labelled(world, secret))
        gathered.secrets[owner.namespace, name] = Secret(name, owner.namespace, {key: data[key] for key in KEYS if key in data})
    else:
        gathered.wake_in = min(gathered.wake_in, ABSENT)
