"""An attempt: one message to one peer over an open session. The third station of a message: scheduler → **attempt** → settle.

The steps:
1. What the peer cannot take is found before a word is said: larger than its SIZE, 8-bit without 8BITMIME.
2. MAIL, every RCPT and DATA, in one write when the peer offers PIPELINING (RFC 2920); the replies are paired one by one.
3. If every recipient was refused there is no data; a 354 all the same is ended by a lone dot whose reply counts for nothing.
4. Headers, the blank line and the body go out in blocks, dots stuffed, with back-pressure.
5. Before the final dot the spool records the claims as in doubt. If the lease is lost, the connection is cut and nothing is delivered here.
6. The reply to the dot is awaited for ten minutes: whoever waits less sends the message twice.

Returns one outcome per claim and never raises for what a peer did. What it never does: decide about retry, write an outcome, send a DSN.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from postroom_core.reply import Reply
from postroom_delivery.classify import Class
from postroom_delivery.dialogue import DotStuffer, mail_command, rcpt_command
from postroom_delivery.outcome import Bounced, Deferred, Delivered, Outcome, Released, from_reply, later, never
from postroom_delivery.session import BROKEN, COMMAND_SECONDS, DATA_SECONDS, FINAL_SECONDS, Session
from postroom_delivery.spool.model import Claim, ClaimedMessage

BLOCK = 64 * 1024
Doubt = Callable[[Sequence[Claim]], Awaitable[None]]
Body = Callable[[str], AsyncIterator[bytes]]


class Attempt:
    """One message over one session. `doubt` and `body` are the spool's."""

    def __init__(self, session: Session, message: ClaimedMessage, doubt: Doubt, body: Body) -> None:
        self._session = session
        self._message = message
        self._doubt = doubt
        self._body = body
        self._outcomes: dict[Claim, Outcome] = {}
        self._after_dot = False

    async def run(self) -> dict[Claim, Outcome]:
        """Raises LostLease and Unavailable of the spool; the session is then cut. Cancelled, it cuts the session too."""
        if refused := self._local_refusal():
            return dict.fromkeys(self._message.claims, refused)
        try:
            await self._transaction()
        except BROKEN as error:
            self._session.abort()
            self._rest(self._broken(error))
        except BaseException:
            self._session.abort()
            raise
        return self._outcomes

    def _local_refusal(self) -> Bounced | None:
        extensions = self._session.extensions
        size = len(self._message.headers) + 2 + self._message.body_size
        if extensions.size and size > extensions.size:
            return never("5.3.4", f"the message has {size} octets, {self._session.host} takes {extensions.size} at most", Class.CONTENT)
        if self._message.eight_bit and "8BITMIME" not in extensions:
            return never("5.6.3", f"the message has 8-bit content, which {self._session.host} does not take", Class.CONTENT)
        return None

    def _rest(self, outcome: Outcome) -> None:
        for claim in self._message.claims:
            self._outcomes.setdefault(claim, outcome)

    def _broken(self, error: BaseException) -> Outcome:
        reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or "the connection was closed"
        where = "after the final dot" if self._after_dot else "during the dialogue"
        failure = later("4.4.2", f"{self._session.host}: {reason} {where}", Class.NETWORK)
        return Deferred(failure.cause, ambiguous=self._after_dot)

    # The dialogue

    async def _transaction(self) -> None:
        session, claims = self._session, self._message.claims
        session.messages += 1
        commands = [mail_command(self._message, session.extensions)]
        commands += [rcpt_command(claim, session.extensions) for claim in claims]
        if "PIPELINING" in session.extensions:
            session.send(b"".join([*commands, b"DATA\r\n"]), len(commands) + 1)
            mail = await session.reply(COMMAND_SECONDS)
            replies = [await session.reply(COMMAND_SECONDS) for _ in claims]
            self._read_envelope(mail, replies)
            go = await session.reply(DATA_SECONDS)
        else:
            go = await self._step_by_step(commands)
        await self._data(go)

    async def _step_by_step(self, commands: list[bytes]) -> Reply:
        session = self._session
        session.send(commands[0])
        mail = await session.reply(COMMAND_SECONDS)
        replies = []
        for line in commands[1:] if mail.kind == 2 else []:
            session.send(line)
            replies.append(await session.reply(COMMAND_SECONDS))
        self._read_envelope(mail, replies)
        if not self._accepted():
            return Reply(503, "", "")  # nobody to send to: DATA is not said
        session.send(b"DATA\r\n")
        return await session.reply(DATA_SECONDS)

    def _read_envelope(self, mail: Reply, replies: list[Reply]) -> None:
        if mail.kind != 2:
            self._rest(from_reply(mail))
            return
        for claim, reply in zip(self._message.claims, replies, strict=True):
            if reply.kind != 2:
                self._outcomes[claim] = from_reply(reply)

    def _accepted(self) -> list[Claim]:
        return [claim for claim in self._message.claims if claim not in self._outcomes]

    async def _data(self, go: Reply) -> None:
        accepted = self._accepted()
        if go.code == 354 and not accepted:
            self._session.send(b".\r\n")
            await self._session.reply(FINAL_SECONDS)
        elif go.code == 354:
            await self._content()
            await self._doubt(accepted)
            self._after_dot = True
            self._session.send(b".\r\n")
            self._rest(self._final(await self._session.reply(FINAL_SECONDS)))
        elif accepted:
            self._rest(from_reply(go))
        if self._session.usable and self._outcomes and not any(isinstance(o, Delivered) for o in self._outcomes.values()) and go.code != 354:
            await self._session.ask("RSET")  # a refused transaction may still be open on the other side

    def _final(self, reply: Reply) -> Outcome:
        if reply.kind == 2:
            return Delivered(reply, dsn="DSN" in self._session.extensions)
        return from_reply(reply)

    async def _content(self) -> None:
        stuffer = DotStuffer()
        self._session.connection.write(stuffer.feed(self._message.headers + b"\r\n"))
        if self._message.body is not None:
            await self._write(stuffer, self._message.body)
        else:
            async for chunk in self._body(self._message.id):
                await self._write(stuffer, chunk)
        if not stuffer.at_line_start:
            self._session.connection.write(b"\r\n")

    async def _write(self, stuffer: DotStuffer, data: bytes) -> None:
        for start in range(0, len(data), BLOCK):
            self._session.connection.write(stuffer.feed(data[start : start + BLOCK]))
            await self._session.drain()


def ends_session(outcomes: dict[Claim, Outcome]) -> bool:
    """Whether the peer said 421: it closes the channel and the rest of the batch was not tried (RFC 5321 section 3.8)."""
    for outcome in outcomes.values():
        if isinstance(outcome, (Deferred, Bounced)) and outcome.cause.reply is not None and outcome.cause.reply.code == 421:
            return True
    return False


def released(message: ClaimedMessage) -> dict[Claim, Outcome]:
    """The outcomes of a message that was not tried."""
    return dict.fromkeys(message.claims, Released())
