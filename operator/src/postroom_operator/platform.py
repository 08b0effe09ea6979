"""What belongs to the installation and to no resource: certificates of the services and of the listeners, and the sweep of what owners left.

The engine runs `Platform.reconcile` as it runs the reconcile of a resource: at once when one of its Secrets changes, and every ten minutes.
"""

import asyncio
import pathlib
import secrets

import structlog

from postroom_core.documents import Certificate
from postroom_operator import certificates
from postroom_operator.kube.kinds import BY_NAME, MAIL_DOMAIN, SECRET, SENDING_POOL
from postroom_operator.plan import credentials, directory, pki
from postroom_operator.plan.names import MANAGED, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE, OWNER_UID, Object, Owner, decoded, encoded
from postroom_operator.reconcile.world import World
from postroom_operator.settings import Settings

log = structlog.get_logger(__name__)
EVERY_SECONDS = 600.0
MANAGER = "postroom-operator-platform"
# Listeners use the certificate of this name when no other fits.
DEFAULT = "default"
KINDS = {"MailDomain": MAIL_DOMAIN, "SendingPool": SENDING_POOL}


def owner_of_all(settings: Settings) -> Owner:
    """Owns what no resource does; the name by which the engine wakes it."""
    return Owner("Platform", settings.platform_namespace, settings.release, f"platform-{settings.release}")


class Platform:
    """The reconcile of the installation."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def reconcile(self, namespace: str, name: str) -> float:
        """Seconds until the next look. Raises what the API raises; then it is tried again."""
        await ensure_pki(self._world)
        await ensure_certificate(self._world)
        await ensure_tokens(self._world)
        await sweep(self._world)
        return EVERY_SECONDS


async def ensure_pki(world: World) -> None:
    """The platform's CA and each service's certificate for gRPC, unless others issue them. Read by name: a stale cache must not make a second CA."""
    settings = world.settings
    if not settings.platform_ca_secret:
        return
    place = pki.Place(settings.release, settings.platform_namespace, settings.key_namespace, settings.platform_ca_secret)
    ca = await world.api.get(SECRET, place.ca, place.keys)
    found = {service: await world.api.get(SECRET, place.secret(service), place.platform) for service in pki.SERVICES}
    leaves = {service: secret for service, secret in found.items() if secret is not None}
    for body in await asyncio.to_thread(pki.due, ca, leaves, place, world.now()):
        leaves |= {service: body for service in pki.SERVICES if place.secret(service) == body["metadata"]["name"]}
        metadata = body["metadata"]
        if "resourceVersion" in metadata:
            await world.api.merge(SECRET, metadata["name"], metadata["namespace"], body)
        else:
            await world.api.create(SECRET, body)
        log.info("a certificate of the platform was made", secret=f"{metadata['namespace']}/{metadata['name']}")
    if settings.grpc_tls is not None:
        _write(settings.grpc_tls, leaves["operator"])


def _write(folder: pathlib.Path, secret: Object) -> None:
    """Our own certificate as files: a mounted Secret that did not exist when the pod started appears a minute later only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, value in decoded(secret).items():
        path = folder / name
        if not path.exists() or path.read_text() != value:
            path.touch(mode=0o600)
            path.write_text(value)


async def ensure_certificate(world: World) -> None:
    """The self-signed certificate of the listeners, made anew before it ends or when the host's name changes."""
    settings = world.settings
    owner = owner_of_all(settings)
    name = directory.secret_name(Certificate(name=DEFAULT, chain="", private_key=""))
    cache = world.caches.of("Secret", settings.platform_namespace)
    known = cache.get(settings.platform_namespace, name) if cache is not None else None
    document = directory.certificate_of(known)
    hostnames = [settings.ingress_hostname]
    if document is None or certificates.names(document) != hostnames or not certificates.lasts(document, world.now()):
        document = await asyncio.to_thread(certificates.self_signed, DEFAULT, hostnames, world.now())
        log.info("the listeners' own certificate was made", hostname=settings.ingress_hostname)
    body = directory.document_secret(owner, settings.platform_namespace, "ingress", document)
    body["metadata"].pop("ownerReferences", None)  # the installation is no object
    await world.children.ensure(owner.uid, [body], MANAGER)


async def ensure_tokens(world: World) -> None:
    """The page's two tokens, one to act and one to look, made once; who wants new ones deletes the Secret."""
    name, namespace = world.settings.page_token_secret, world.settings.platform_namespace
    if not name or await world.api.get(SECRET, name, namespace) is not None:
        return
    data = encoded({role: secrets.token_urlsafe(24) for role in ("operator", "viewer")})
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": MANAGED},
        "type": "Opaque",
        "data": data,
    }
    await world.api.create(SECRET, body)
    log.info("the page's tokens were made", secret=f"{namespace}/{name}")


async def sweep(world: World) -> None:
    """Removes objects whose owner is gone without its finalizer having run, for example because somebody removed it by force."""
    for kind in KINDS:
        if any(name == kind and (cache.forbidden or not cache.synced.is_set()) for name, cache in world.caches.kinds()):
            return  # who cannot see the owners takes nothing away
    alive = {found["metadata"]["uid"] for kind in KINDS for found in world.resources(kind)}
    watched = world.settings.watch_namespaces
    for name, cache in world.caches.kinds():
        for found in cache.all() if name in BY_NAME else []:
            labels = found["metadata"].get("labels", {})
            ours = labels.get(OWNER_KIND) in KINDS and OWNER_UID in labels and (not watched or labels.get(OWNER_NAMESPACE) in watched)
            if ours and labels[OWNER_UID] not in alive:
                # The caches fill one after the other: ask before what is young is taken for an orphan.
                await _remove_orphan(world, name, found)


async def _remove_orphan(world: World, kind: str, found: Object) -> None:
    labels = found["metadata"]["labels"]
    owner = await world.api.get(KINDS[labels[OWNER_KIND]], labels[OWNER_NAME], labels[OWNER_NAMESPACE])
    if owner is None or owner["metadata"]["uid"] != labels[OWNER_UID]:
        await world.children.remove(BY_NAME[kind], found)
        log.warning("an orphan was removed", kind=kind, namespace=found["metadata"]["namespace"], name=found["metadata"]["name"])


def remember_usernames(world: World) -> None:
    """Who has which SMTP user name, from the directory: whoever had it before a restart keeps it."""
    cache = world.caches.of("Secret", world.settings.platform_namespace)
    for secret in cache.all() if cache is not None else []:
        uid = secret["metadata"].get("labels", {}).get(OWNER_UID, "")
        for held in credentials.load(decoded(secret).get(directory.STATE, "{}")).values():
            world.usernames.setdefault(held.username, uid)
