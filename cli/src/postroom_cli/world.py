"""The world as `postroom up` sees it: plans, makes what the plan wants, publishes the directory; watches the files and the DNS.

The loop is level-triggered: every round reads the files, observes the store and plans anew, so a missed change is picked up by the next round.
"""

import datetime
import pathlib
from collections.abc import Sequence

import dns.exception
import structlog

from postroom_cli.layout import Layout
from postroom_cli.store import Store
from postroom_core import directory
from postroom_core.resolvers import resolver
from postroom_operator import resources
from postroom_operator.plan.compile import Plan, compile_resources
from postroom_operator.plan.keys import StoredKey

log = structlog.get_logger(__name__)
# Making keys and secrets wants a second plan, making verifiers of new secrets a third.
MOST_ROUNDS = 5
DNS_SECONDS = 5.0


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class World:
    """One data folder and one place with resources."""

    def __init__(self, layout: Layout, path: pathlib.Path, own_name: str) -> None:
        self._layout = layout
        self._path = path
        self._own_name = own_name
        self._store = Store(layout)
        self._seen: object = None
        self.plan = Plan()

    def stamp(self) -> object:
        """Changes when a file does."""
        try:
            return [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in resources.files(self._path)]
        except OSError:
            return None

    def apply(self) -> Plan:
        """Plans, makes what is missing, publishes. With problems nothing is published and the last directory stays in force."""
        self._seen = self.stamp()
        read = resources.read(self._path)
        for _ in range(MOST_ROUNDS):
            plan = compile_resources(read, self._store.observe(self._own_name, now()))
            if plan.problems or not (plan.wanted_keys or plan.wanted_secrets or plan.wanted_verifiers or plan.wanted_certificates):
                break
            self._make(plan)
        if not plan.problems:
            self._publish(plan)
            self.plan = plan
        return plan

    def files_changed(self) -> bool:
        """Whether a file differs from what was applied; files that vanished are no change, they may be half written."""
        stamp = self.stamp()
        return stamp is not None and stamp != self._seen

    def _make(self, plan: Plan) -> None:
        for domain, algorithm, prefix in plan.wanted_keys:
            self._store.make_key(domain, algorithm, prefix, now())
        for key, domain in plan.wanted_secrets:
            self._store.make_secret(key, domain)
        for wanted in plan.wanted_certificates:
            self._store.make_certificate(wanted.name, wanted.hostnames, now())
        for username, password in plan.wanted_verifiers:
            self._store.make_verifier(username, password)

    def _publish(self, plan: Plan) -> None:
        for consumer, documents in (("signer", plan.signer), ("delivery", plan.delivery), ("ingress", plan.ingress)):
            directory.publish(self._layout.directory(consumer), documents, directory.version_of(documents))

    def logins_with_origin(self) -> list[tuple[str, str, bool]]:
        """(user name, password, whether it was generated here) of every credential in force."""
        given = resources.read(self._path).secrets
        made = self._store.observe(self._own_name, now()).secrets
        found = []
        for _, username, key in self.plan.credentials:
            secret = given.get(key) or made.get(key)
            if secret is not None:
                found.append((username, secret.data["password"], key not in given))
        return found

    def logins(self) -> list[dict[str, str]]:
        """For `postroom send`: domain, user name and password of every credential; kept 0600 beside the sockets."""
        passwords = {username: password for username, password, _ in self.logins_with_origin()}
        return [{"domain": domain, "username": username, "password": passwords[username]} for domain, username, _ in self.plan.credentials]

    # Activation of generated keys (P4)

    def waiting_keys(self) -> list[StoredKey]:
        """Generated keys whose record has not been seen."""
        stored = self._store.observe(self._own_name, now()).keys
        return [key for domain in self.plan.records for key in stored.get(domain, ()) if not key.active]

    async def activate_published(self, servers: Sequence[str]) -> list[StoredKey]:
        """Activates the keys whose record the world sees now; which ones."""
        seen = [key for key in self.waiting_keys() if await is_published(f"{key.selector}._domainkey.{key.domain}", key.public, servers)]
        for key in seen:
            self._store.activate(key)
        return seen


async def looked_up(name: str, rdtype: str, servers: Sequence[str]) -> list[str]:
    """The records of a name, of TXT with strings joined; empty when there is none or DNS does not answer."""
    try:
        answer = await resolver(servers, DNS_SECONDS).resolve(f"{name}.", rdtype, search=False, raise_on_no_answer=False)
    except (dns.exception.DNSException, OSError):
        return []
    return [b"".join(found.strings).decode("utf-8", "replace") if rdtype == "TXT" else str(found) for found in answer.rrset or ()]


async def is_published(name: str, public: str, servers: Sequence[str]) -> bool:
    """Whether exactly one DKIM record answers at the name, with our p=."""
    found = [record for record in await looked_up(name, "TXT", servers) if "p=" in record]
    return len(found) == 1 and f"p={public}" in found[0].replace(" ", "").split(";")
