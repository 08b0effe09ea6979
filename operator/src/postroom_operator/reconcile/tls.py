"""The certificate of one MailDomain's own host names: reads the Secret that it comes from, makes a self-signed one where there is none."""

import asyncio

from postroom_core.documents import Certificate
from postroom_operator import certificates
from postroom_operator.kube.api import Forbidden
from postroom_operator.plan import directory, tls
from postroom_operator.plan.certificates import Wanted, compile_certificate
from postroom_operator.plan.findings import Problem
from postroom_operator.plan.names import Object, Owner, decoded
from postroom_operator.plan.tls import Found
from postroom_operator.reconcile import credentials
from postroom_operator.reconcile.world import World, resource_of
from postroom_operator.resources import Secret


async def find(world: World, owner: Owner, found: Object, *, cert_manager: bool) -> Found:
    """What is in force for spec.tls."""
    spec = found["spec"]
    if "tls" not in spec:
        return Found(None, "")
    name = tls.issued_from(owner, spec, cert_manager=cert_manager)
    if name is None:
        return Found(await _self_signed(world, found), "SelfSigned")
    try:
        secret = await credentials.read(world, owner.namespace, name)
    except Forbidden as error:
        return Found(await _self_signed(world, found), "SelfSigned", f"{error}; give the operator rights on Secrets in {owner.namespace}")
    data = decoded(await credentials.labelled(world, secret)) if secret is not None else {}
    given = resource_of({**found, "spec": {**spec, "tls": {**spec["tls"], "secretRef": {"name": name}}}})
    match compile_certificate(given, lambda _: Secret(name, owner.namespace, data), {}):
        case Certificate() as document:
            return Found(document, "Secret" if "secretRef" in spec["tls"] else "CertManager")
        case Problem(text=text):
            return Found(await _self_signed(world, found), "SelfSigned", text)
        case other:
            raise AssertionError(f"a Secret was given, and the answer is {other}")


async def _self_signed(world: World, found: Object) -> Certificate:
    """The one that is in force while it lasts, else a new one."""
    without = {name: value for name, value in found["spec"]["tls"].items() if name != "secretRef"}
    wanted = compile_certificate(resource_of({**found, "spec": {**found["spec"], "tls": without}}), lambda _: None, {})
    if not isinstance(wanted, Wanted):
        raise AssertionError("without a Secret a certificate is wanted")
    place = world.settings.platform_namespace
    cache = world.caches.of("Secret", place)
    name = directory.secret_name(Certificate(name=wanted.name, chain="", private_key=""))
    known = directory.certificate_of(cache.get(place, name) if cache is not None else None)
    if known is not None and known.hostnames == wanted.hostnames and certificates.issued_by_itself(known) and certificates.lasts(known, world.now()):
        return known
    made = await asyncio.to_thread(certificates.self_signed, wanted.name, wanted.hostnames, world.now())
    return made.model_copy(update={"hostnames": wanted.hostnames})
