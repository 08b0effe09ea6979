"""DKIM keys of one MailDomain: reads their Secrets, asks the state machine, stores the new states. Makes and deletes key pairs, decides nothing."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroom_core.errors import Transient
from postroom_operator.kube.api import Conflict
from postroom_operator.kube.kinds import SECRET
from postroom_operator.plan import keys as key_names
from postroom_operator.plan import keysecrets
from postroom_operator.plan.dkim import Key, Policy, Rotation, Seen, State, advance
from postroom_operator.plan.names import DOMAIN, KEY_TYPE, Object, Owner
from postroom_operator.reconcile import hardwork
from postroom_operator.reconcile.world import World

log = structlog.get_logger(__name__)


def secrets_of(world: World, uid: str) -> list[Object]:
    """The key Secrets of a MailDomain. Raises Transient while they cannot be seen: a plan without them would make new keys."""
    cache = world.caches.of("Secret", world.settings.key_namespace)
    if cache is None:
        raise Transient(f"Secrets in {world.settings.key_namespace} cannot be watched; check the operator's rights there")
    return [found for found in cache.owned(uid) if found.get("type") == KEY_TYPE]


def _of_domain(world: World, uid: str, domain: str) -> list[Object]:
    """With what another namespace's MailDomain of the domain has left: its names are taken."""
    cache = world.caches.of("Secret", world.settings.key_namespace)
    nobodys = cache.owned("") if cache is not None else []
    left = [found for found in nobodys if found["metadata"].get("annotations", {}).get(DOMAIN) == domain]
    return [*secrets_of(world, uid), *left]


async def import_key(world: World, owner: Owner, domain: str, selector: str, pem: str) -> None:
    """Copies a key that was brought along to the key namespace; it signs at once. Raises ValueError for what is no key."""
    algorithm, public = key_names.describe(pem)
    secrets = secrets_of(world, owner.uid)
    if selector in keysecrets.by_selector(secrets):
        return
    now = world.now()
    key = Key(selector, algorithm, State.ACTIVE, now, imported=True, published=now, activated=now)
    await _create(world, owner, domain, key, (pem, public))


async def advance_keys(world: World, owner: Owner, domain: str, prefix: str, step: tuple[Policy, Mapping[str, Seen]]) -> Rotation:
    """One step of the state machine, stored."""
    policy, seen = step
    secrets = secrets_of(world, owner.uid)
    keys = [keysecrets.from_secret(secret) for secret in secrets]
    loaded: frozenset[str] = frozenset()
    if any(key.state == State.PUBLISHED for key in keys):
        loaded = await world.signers.held_by_all(domain)
    now = world.now()
    rotation = advance(keys, seen, loaded, policy, now)
    known = keysecrets.by_selector(secrets)
    before = {key.selector: key for key in keys}
    for key in rotation.keys:
        if key != before[key.selector]:
            await _store(world, known[key.selector], before[key.selector], key)
    for algorithm in rotation.create:
        if any(key.algorithm == algorithm and key.state == State.ACTIVE for key in keys):
            world.rotations.take(now)
        await _make(world, owner, domain, (algorithm, prefix, policy.trigger), now)
    for selector in rotation.delete:
        await world.children.remove(SECRET, known[selector])
        log.info("a DKIM key ended", domain=domain, selector=selector)
    return rotation


async def _store(world: World, secret: Object, before: Key, key: Key) -> None:
    """Guarded by the version that the decision was made on: of two leaders one decides."""
    metadata = secret["metadata"]
    notes: dict[str, Any] = dict.fromkeys(keysecrets.state_annotations(before))
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": notes | keysecrets.state_annotations(key)}}
    done = await world.api.merge(SECRET, metadata["name"], metadata["namespace"], patch)
    _remember(world, done)
    if before.state != key.state:
        log.info("a DKIM key moved on", selector=key.selector, before=str(before.state), state=str(key.state))


async def _make(world: World, owner: Owner, domain: str, what: tuple[str, str, str], now: datetime) -> None:
    algorithm, prefix, trigger = what
    pem = await hardwork.done(lambda: _generate(algorithm))
    public = key_names.describe(pem)[1]
    key = Key(key_names.selector(prefix, now, public), algorithm, State.PUBLISHING, now, trigger=trigger)
    await _create(world, owner, domain, key, (pem, public))


async def _create(world: World, owner: Owner, domain: str, key: Key, pair: tuple[str, str]) -> None:
    number = keysecrets.next_number(_of_domain(world, owner.uid, domain), key.algorithm)
    place = (world.settings.key_namespace, keysecrets.secret_name(domain, key.algorithm, number))
    try:
        done = await world.api.create(SECRET, keysecrets.to_secret(owner, place, key, pair[0], pair[1], number))
    except Conflict as error:
        raise Transient(f"the key Secret {place[1]} is there already; it is looked at again") from error
    _remember(world, done)
    log.info("a DKIM key was made", domain=domain, selector=key.selector, algorithm=key.algorithm)


def _remember(world: World, secret: Object) -> None:
    cache = world.caches.of("Secret", secret["metadata"]["namespace"])
    if cache is not None:
        cache.put(secret)


def _generate(algorithm: str) -> str:
    private: Any = ed25519.Ed25519PrivateKey.generate() if algorithm == "Ed25519" else rsa.generate_private_key(65537, 2048)
    pem: bytes = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()
