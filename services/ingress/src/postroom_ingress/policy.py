"""Who may send as whom. Pure: an index over the Domain documents, and questions to it. P5: nobody relays who is not known.

An identity is a credential (known by AUTH) or a client (known by the address it connects from). It may use the senders that its document names, in
the envelope and in From alike, and nothing else; an address being private says nothing about who uses it.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509

from postroom_core import returnpath
from postroom_core.address import Mailbox, matches
from postroom_core.documents import Credential, Domain, Limits
from postroom_core.headers import Field, MalformedHeader, from_address
from postroom_core.reply import Reply
from postroom_core.snapshot import Snapshot
from postroom_ingress import certificates
from postroom_ingress.options import Wishes

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NOT_ALLOWED = Reply(550, "5.7.1", "Relaying denied: authenticate, or connect from an address that is allowed to send")
WRONG_SENDER = Reply(550, "5.7.1", "You are not allowed to send as this sender")
WRONG_FROM = Reply(550, "5.7.1", "You are not allowed to send with this From address")
HOLD_DENIED = Reply(550, "5.7.1", "Only authenticated clients may ask for a later release")
PRIORITY_DENIED = Reply(550, "5.7.1", "You are not allowed to ask for this priority")
PAUSED = Reply(450, "4.7.1", "Sending for this domain is paused, try again later")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends: the domain it belongs to, its name for records, the senders it may use, its own limits beside the domain's."""

    domain: Domain
    name: str
    allowed_senders: tuple[str, ...]
    authenticated: bool
    priorities: tuple[int, int] | None = None  # RFC 6710: what it may ask for
    limits: Limits = field(default_factory=Limits)
    reports: bool = False  # anybody, with a report for the domain's return path and nothing else

    def least(self, name: str) -> int | None:
        """The smaller of the identity's and the domain's limit of this name, None when there is neither."""
        found = [limit for limits in (self.limits, self.domain.limits) if (limit := getattr(limits, name)) is not None]
        return min(found, default=None)


@dataclass(frozen=True, slots=True)
class Login:
    """A credential with its domain."""

    domain: Domain
    credential: Credential


class Policy:
    """The policy of one snapshot."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        domains = snapshot.of(Domain) if snapshot is not None else {}
        logins = [Login(domain, credential) for domain in domains.values() for credential in domain.credentials]
        self._logins = {login.credential.username: login for login in logins if login.credential.verifiers}
        paths = {domain.return_path.rpartition("@")[::2]: domain for domain in domains.values() if domain.return_path}
        self._return_paths = {(local, host): domain for (local, host), domain in paths.items()}
        self._accounts: dict[tuple[str, str], list[Login]] = {}
        for login in logins:
            for account in login.credential.service_accounts:
                self._accounts.setdefault((account.namespace, account.name), []).append(login)
        self._certified = [login for login in logins if login.credential.client_certificate is not None]
        self._clients: list[tuple[_Network, Identity]] = [
            (ipaddress.ip_network(cidr), Identity(domain, client.name, client.allowed_senders, authenticated=False))
            for domain in domains.values()
            for client in domain.clients
            for cidr in client.cidrs
        ]

    def reporter(self, recipient: Mailbox) -> Identity | None:
        """Who writes to the return path of a domain: anybody may, and what comes is read as a report about its mail, never sent on (P5).

        Whether one that names a recipient is ours is delivery's question.
        """
        named = returnpath.parse(str(recipient))
        local = named.base.rpartition("@")[0] if named is not None else recipient.local.lower()
        domain = self._return_paths.get((local, recipient.domain))
        return Identity(domain, "report", (), authenticated=False, reports=True) if domain is not None else None

    def login(self, username: str) -> Login | None:
        """The credential that a user name with a password means."""
        return self._logins.get(username)

    def of_service_account(self, namespace: str, name: str, username: str) -> Login | None:
        """The credential that a ServiceAccount may use; `username` chooses among several and must be right when it is given."""
        return _chosen(self._accounts.get((namespace, name), []), username)

    def of_certificate(self, certificate: x509.Certificate, username: str) -> Login | None:
        """The credential that a client certificate is for; `username` as above."""
        rules = [(login, login.credential.client_certificate) for login in self._certified]
        return _chosen([login for login, rule in rules if rule is not None and certificates.fits(rule, certificate)], username)

    @property
    def authorities(self) -> str:
        """The authorities of client certificates, PEM; "" when no credential wants one."""
        return certificates.authorities(login.credential.client_certificate for login in self._certified if login.credential.client_certificate)

    def clients_at(self, address: str) -> list[Identity]:
        """Every client that may send from this address without AUTH; the sender decides which one it is."""
        return [identity for network, identity in self._clients if _inside(address, [network])]


def _chosen(logins: list[Login], username: str) -> Login | None:
    """The only one, or the one that is named."""
    found = [login for login in logins if username in ("", login.credential.username)]
    return found[0] if len(found) == 1 else None


def of_login(login: Login, address: str) -> Identity | None:
    """The identity after a right password; None when it may not be used from this address."""
    cidrs = login.credential.allowed_source_cidrs
    if cidrs and not _inside(address, map(ipaddress.ip_network, cidrs)):
        return None
    credential = login.credential
    return Identity(
        login.domain, credential.name, credential.allowed_senders, authenticated=True, priorities=credential.priorities, limits=credential.limits
    )


def _inside(address: str, networks: Iterable[_Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed.version == network.version and parsed in network for network in networks)


def may_use(identity: Identity, mailbox: Mailbox) -> bool:
    """Whether the identity may send as this mailbox."""
    return any(matches(mailbox, pattern) for pattern in identity.allowed_senders)


def check_sender(identity: Identity, sender: Mailbox | None) -> Reply | None:
    """The refusal of a reverse-path, None when it is allowed. The null reverse-path is: From is checked as well."""
    if not identity.domain.active:
        return PAUSED
    if sender is not None and not may_use(identity, sender):
        return WRONG_SENDER
    return None


def check_wishes(identity: Identity | None, wishes: Wishes) -> Reply | None:
    """The refusal of a parameter of MAIL that not everybody may use (RFC 4865 section 4, RFC 6710 section 8)."""
    if wishes.holds and (identity is None or not identity.authenticated):
        return HOLD_DENIED
    if wishes.priority:
        least, greatest = (identity.priorities if identity is not None else None) or (0, 0)
        if not least <= wishes.priority <= greatest:
            return PRIORITY_DENIED
    return None


def check_from(identity: Identity, fields: tuple[Field, ...], *, utf8: bool = False) -> Reply | None:
    """The refusal of the From field (RFC 6409 section 6.1): every address in it must be allowed."""
    try:
        addresses = from_address(fields, utf8=utf8)
    except MalformedHeader as error:
        return Reply(554, "5.6.0", str(error))
    if all(may_use(identity, Mailbox(local, domain)) for local, domain in addresses):
        return None
    return WRONG_FROM
