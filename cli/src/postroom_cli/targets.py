"""What `postroom check` and the page check: a domain with what is known of it on this machine."""

import contextlib
import json

from postroom_cli.layout import Layout
from postroom_cli.store import Store
from postroom_core.directory import FileSource
from postroom_core.documents import KeySet
from postroom_core.errors import Transient
from postroom_insight import check
from postroom_insight.keys import OwnKey
from postroom_insight.lookups import outward_addresses
from postroom_operator.plan import keys
from postroom_operator.plan.keys import StoredKey

PORTS = ("submission", "relay")  # implicit TLS has the same dialogue behind its handshake


def target(layout: Layout, domain: str, own_name: str) -> check.Target:
    """Everything that can be known here; the addresses seen from outside, behind NAT, cannot."""
    return check.Target(domain, own_name, tuple(outward_addresses()), own_keys(layout, domain), listeners=listeners(layout))


def own_keys(found: Layout, domain: str) -> tuple[OwnKey, ...]:
    """The DKIM keys of a domain in the data folder: those that sign now, generated or imported, and those that wait for their record."""
    known = {key.selector: key for key in Store(found).observe_keys().keys.get(domain, ())}
    with contextlib.suppress(Transient):  # nothing published yet
        signing = FileSource(found.directory("signer")).load().of(KeySet).get(domain)
        for key in signing.keys if signing is not None else ():
            algorithm, public = keys.describe(key.private_key)
            known[key.selector] = StoredKey(domain, key.selector, algorithm, public, True, key.private_key)
    return tuple(OwnKey(key.selector, key.algorithm, key.public, key.record, key.active) for _, key in sorted(known.items()))


def listeners(found: Layout) -> tuple[tuple[str, int], ...]:
    """Where the running instance takes mail; empty when none runs."""
    try:
        running = json.loads(found.running.read_text())
    except OSError:
        return ()
    return tuple((running["listen"], running["ports"][name]) for name in PORTS)
