"""The envelope that goes with a message to the spool. Pure values."""

from dataclasses import dataclass

from postroom_ingress.dialogue import Transaction
from postroom_ingress.options import PLAIN, MailOptions
from postroom_ingress.params import RcptArguments

_WINDOWS = ((3600, "messages_per_hour"), (86_400, "messages_per_day"))


@dataclass(frozen=True, slots=True)
class Envelope:
    """`received_at` in Unix milliseconds; `allowances` are (key, window in seconds, most messages)."""

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
    allowances: tuple[tuple[str, int, int], ...]
    traceparent: str = ""
    options: MailOptions = PLAIN

    @property
    def ascii(self) -> bool:
        """Whether no address needs SMTPUTF8."""
        return self.reverse_path.isascii() and all(str(r.recipient).isascii() for r in self.recipients)


def of(transaction: Transaction, message_id: str, received_at: int, client_address: str, traceparent: str) -> Envelope:
    """The envelope of a transaction that policy has let through."""
    assert transaction.identity is not None
    domain = transaction.identity.domain
    limits = [(window, getattr(domain.limits, name)) for window, name in _WINDOWS]
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
        allowances=tuple((f"domain:{domain.name}", window, most) for window, most in limits if most is not None),
        traceparent=traceparent,
        options=transaction.options,
    )
