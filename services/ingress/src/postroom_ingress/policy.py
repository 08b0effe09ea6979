"""Who may send as whom. Pure: an index over the Domain documents, and questions to it. P5: nobody relays who is not known.

An identity is a credential (known by AUTH) or a client (known by the address it connects from). It may use the senders that its document names, in
the envelope and in From alike, and nothing else; an address being private says nothing about who uses it.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from postroom_core.address import Mailbox, matches
from postroom_core.documents import Credential, Domain
from postroom_core.headers import Field, MalformedHeader, from_address
from postroom_core.reply import Reply
from postroom_core.snapshot import Snapshot
from postroom_ingress.options import Wishes

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NOT_ALLOWED = Reply(550, "5.7.1", "Relaying denied: authenticate, or connect from an address that is allowed to send")
WRONG_SENDER = Reply(550, "5.7.1", "You are not allowed to send as this sender")
WRONG_FROM = Reply(550, "5.7.1", "You are not allowed to send with this From address")
HOLD_DENIED = Reply(550, "5.7.1", "Only authenticated clients may ask for a later release")
PRIORITY_DENIED = Reply(550, "5.7.1", "You are not allowed to ask for this priority")
PAUSED = Reply(450, "4.7.1", "Sending for this domain is paused, try again later")
WRONG_SOURCE = Reply(535, "5.7.8", "Authentication failed")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends: the domain it belongs to, its name for records, the senders it may use."""

    domain: Domain
    name: str
    allowed_senders: tuple[str, ...]
    authenticated: bool
    priorities: tuple[int, int] | None = None  # RFC 6710: what it may ask for


@dataclass(frozen=True, slots=True)
class Login:
    """A credential with its domain."""

    domain: Domain
    credential: Credential


class Policy:
    """The policy of one snapshot."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        domains = snapshot.of(Domain) if snapshot is not None else {}
        self._logins = {c.username: Login(domain, c) for domain in domains.values() for c in domain.credentials}
        self._clients: list[tuple[_Network, Identity]] = [
            (ipaddress.ip_network(cidr), Identity(domain, client.name, client.allowed_senders, authenticated=False))
            for domain in domains.values()
            for client in domain.clients
            for cidr in client.cidrs
        ]

    def login(self, username: str) -> Login | None:
        """The credential that a user name means."""
        return self._logins.get(username)

    def clients_at(self, address: str) -> list[Identity]:
        """Every client that may send from this address without AUTH; the sender decides which one it is."""
        return [identity for network, identity in self._clients if _inside(address, [network])]


def of_login(login: Login, address: str) -> Identity | None:
    """The identity after a right password; None when it may not be used from this address."""
    cidrs = login.credential.allowed_source_cidrs
    if cidrs and not _inside(address, map(ipaddress.ip_network, cidrs)):
        return None
    credential = login.credential
    return Identity(login.domain, credential.name, credential.allowed_senders, authenticated=True, priorities=credential.priorities)


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
