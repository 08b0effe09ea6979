"""A message that comes as a whole, by HTTP: the same policy, limits, gate, stamp, signature and spool as by SMTP. Knows no HTTP.

What SMTP decides at MAIL, RCPT and the final dot is decided here in the same order, by the same functions, and told by the same replies.
"""

import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from postroom_core.address import Mailbox
from postroom_core.errors import Unavailable
from postroom_core.ids import new_message_id
from postroom_core.reply import Reply
from postroom_core.telemetry import traceparent
from postroom_ingress import envelope, policy
from postroom_ingress.dialogue import Transaction
from postroom_ingress.options import PLAIN
from postroom_ingress.params import MailArguments, RcptArguments
from postroom_ingress.policy import Identity
from postroom_ingress.reception import AWAY, Order, Reception, Services
from postroom_ingress.stamp import Trace

KEY_USED = Reply(554, "5.5.4", "The idempotency key has been used for another message")


@dataclass(frozen=True, slots=True)
class Letter:
    """Who sends to whom. `key` is the client's idempotency key, "" when there is none; `mark` then tells one content from another, and becomes
    the envelope id."""

    identity: Identity
    sender: Mailbox | None
    recipients: tuple[Mailbox, ...]
    address: str
    key: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """250 and the message's id, or the refusal."""

    reply: Reply
    message_id: str


class Submission:
    """One for the process. `size` and `recipients` are the listener's own limits of a message."""

    def __init__(self, services: Services, own_name: str, size: int, recipients: int) -> None:
        self._services = services
        self._own_name = own_name
        self._size = size
        self._recipients = recipients

    def size_limit(self, identity: Identity) -> int:
        """Octets of a message."""
        own = identity.least("max_message_bytes")
        return min(self._size, own) if own is not None else self._size

    async def submit(self, letter: Letter, content: AsyncIterator[bytes]) -> Answer:
        """Takes the content (lines ended by CRLF, in blocks of any size) and answers it. Raises what the iterator raises; nothing is left then."""
        now = self._services.clock.now_ms()
        message_id = keyed_id(letter.identity, letter.key) if letter.key else new_message_id(now)
        refusal = await self._refusal(letter)
        if refusal is not None:
            return Answer(refusal, message_id)
        reception = Reception(self._order(letter, message_id, now), self._services)
        try:
            async for block in content:
                if await reception.take(block) is not None:
                    break
        except BaseException:
            reception.abandon()
            raise
        reply = await reception.end()
        if reply.kind == 2 and letter.key:
            reply = await self._same(letter, message_id, reply)
        return Answer(reply, message_id)

    async def _refusal(self, letter: Letter) -> Reply | None:
        identity = letter.identity
        most = min(identity.least("max_recipients_per_message") or self._recipients, self._recipients)
        if len(letter.recipients) > most:
            return Reply(554, "5.5.3", f"The message has more than {most} recipients")
        if (refusal := policy.check_sender(identity, letter.sender)) is not None:
            return refusal
        domain = identity.domain
        for recipient in letter.recipients:
            refusal = await self._services.spool.suppressed(domain.delivery_target, domain.tenant, domain.name, str(recipient))
            if refusal is not None:
                return replace(refusal, text=f"<{recipient}>: {refusal.text}")
        return None

    def _order(self, letter: Letter, message_id: str, now: int) -> Order:
        arguments = MailArguments(letter.sender, envid=letter.mark)
        transaction = Transaction(arguments, letter.identity, PLAIN, [RcptArguments(recipient) for recipient in letter.recipients])
        trace = Trace(
            helo="client",
            client=letter.address,
            own_name=self._own_name,
            message_id=message_id,
            received_at=now,
            esmtp=True,
            tls_cipher="",
            authenticated=True,
            recipient=str(letter.recipients[0]) if len(letter.recipients) == 1 else "",
            utf8=True,
            http=True,
        )
        return Order(
            envelope=envelope.of(transaction, message_id, now, letter.address, traceparent()),
            identity=letter.identity,
            trace=trace,
            size_limit=self.size_limit(letter.identity),
            submission=True,
            chunks=True,
        )

    async def _same(self, letter: Letter, message_id: str, accepted: Reply) -> Reply:
        """Whether what the spool has under the key's id is this message, now or from before."""
        try:
            kept = await self._services.spool.show(message_id, letter.identity.domain.delivery_target)
        except Unavailable:
            return AWAY
        return accepted if kept is not None and kept.envid == letter.mark else KEY_USED


def keyed_id(identity: Identity, key: str) -> str:
    """The message id of an idempotency key: the same on every replica and for ever, another for every credential."""
    digest = hmac.digest(key.encode(), f"{identity.domain.tenant}\0{identity.domain.name}\0{identity.name}".encode(), "sha256")
    return new_message_id(int.from_bytes(digest[:6], "big"), int.from_bytes(digest[6:16], "big"))
