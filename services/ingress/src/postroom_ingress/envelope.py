"""The envelope that goes with a message to the spool. Pure values."""

from dataclasses import dataclass

from postroom_core.documents import Limits
from postroom_ingress.dialogue import Transaction
from postroom_ingress.options import PLAIN, MailOptions
from postroom_ingress.params import RcptArguments
from postroom_ingress.policy import Identity

HOUR, DAY = 3600, 86_400


@dataclass(frozen=True, slots=True)
class Allowance:
    """At most `maximum` of `unit` for `key` in each window of so many seconds; the message counts `amount`."""

    key: str
    window_seconds: int
    maximum: int
    amount: int
    unit: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """`received_at` in Unix milliseconds."""

    message_id: str
    tenant: str
    pool: str
    domain: str
    credential: str
    reverse_path: str
    recipients: tuple[RcptArguments, ...]
    ret: str
    envid: str
    received_at: int
    client_address: str
    allowances: tuple[Allowance, ...]
    traceparent: str = ""
    options: MailOptions = PLAIN

    @property
    def ascii(self) -> bool:
        """Whether no address needs SMTPUTF8."""
        return self.reverse_path.isascii() and all(str(r.recipient).isascii() for r in self.recipients)


def allowances(identity: Identity, recipients: int) -> tuple[Allowance, ...]:
    """What a message with so many recipients counts against the limits of its credential and of its domain; clients have the domain's alone."""
    domain = identity.domain
    found = _allowances(f"domain:{domain.name}", domain.limits, recipients)
    if identity.authenticated:
        found += _allowances(f"credential:{domain.name}/{identity.name}", identity.limits, recipients)
    return found


def _allowances(key: str, limits: Limits, recipients: int) -> tuple[Allowance, ...]:
    wanted = (
        (key, HOUR, limits.messages_per_hour, 1, "messages"),
        (key, DAY, limits.messages_per_day, 1, "messages"),
        (f"{key}:recipients", HOUR, limits.recipients_per_hour, recipients, "recipients"),
        (f"{key}:recipients", DAY, limits.recipients_per_day, recipients, "recipients"),
    )
    return tuple(Allowance(key, window, most, amount, unit) for key, window, most, amount, unit in wanted if most is not None)


def of(transaction: Transaction, message_id: str, received_at: int, client_address: str, traceparent: str) -> Envelope:
    """The envelope of a transaction that policy has let through."""
    assert transaction.identity is not None
    domain = transaction.identity.domain
    return Envelope(
        message_id=message_id,
        tenant=domain.tenant,
        pool=domain.pool,
        domain=domain.name,
        credential=transaction.identity.name,
        reverse_path=str(transaction.mail.sender) if transaction.mail.sender is not None else "",
        recipients=tuple(transaction.recipients),
        ret=transaction.mail.ret,
        envid=transaction.mail.envid,
        received_at=received_at,
        client_address=client_address,
        allowances=allowances(transaction.identity, len(transaction.recipients)),
        traceparent=traceparent,
        options=transaction.options,
    )
