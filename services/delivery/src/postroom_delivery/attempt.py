"""An attempt: one message to one peer over an open session. The third station of a message: scheduler → **attempt** → settle.

The steps:
1. What the peer cannot take is found before a word is said (needs.py): larger than its SIZE, 8-bit, SMTPUTF8 or binary without the extension.
2. One transaction for as many recipients as the peer's LIMITS allow; more transactions follow for the rest, and for those refused as one too many.
3. MAIL, every RCPT and DATA, in one write when the peer offers PIPELINING (RFC 2920); the replies are paired one by one.
4. If every recipient was refused there is no data; a 354 all the same is ended by a lone dot whose reply counts for nothing.
5. The content goes out in blocks with back-pressure: by DATA with dots stuffed, or by one BDAT where the peer offers CHUNKING (RFC 3030).
6. Before the final dot, or the last block of BDAT, the spool records the claims as in doubt. If the lease is lost, the connection is cut and
   nothing is delivered here.
7. The final reply is awaited for ten minutes: whoever waits less sends the message twice.

Returns one outcome per claim and never raises for what a peer did. What it never does: decide about retry, write an outcome, send a DSN.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from postroom_core.reply import Reply
from postroom_delivery import needs
from postroom_delivery.classify import Class
from postroom_delivery.dialogue import DotStuffer, LineEnds, ProtocolError, mail_command, rcpt_command
from postroom_delivery.outcome import Bounced, Deferred, Delivered, Outcome, Released, from_reply, later, never
from postroom_delivery.session import BROKEN, Session
from postroom_delivery.spool.model import Claim, ClaimedMessage

BLOCK = 64 * 1024
Doubt = Callable[[Sequence[Claim]], Awaitable[None]]
Body = Callable[[str], AsyncIterator[bytes]]


class StaleSession(Exception):
    """A reused connection had been given up by the peer before this message: nothing was tried, and a new connection will tell."""


class BareLineEnd(Exception):
    """The content has a CR or LF that is no CRLF: by DATA it could end the message early at a weak receiver. Ingress refuses such content."""


class Attempt:
    """One message over one session. `doubt` and `body` are the spool's; `now` in Unix milliseconds."""

    def __init__(self, session: Session, message: ClaimedMessage, doubt: Doubt, body: Body, now: int) -> None:
        self._session = session
        self._message = needs.tunnelled(message, session.extensions)
        self._wishes = needs.wishes(message, session.extensions, now)
        self._doubt = doubt
        self._body = body
        self._outcomes: dict[Claim, Outcome] = {}
        self._claims: tuple[Claim, ...] = ()
        self._heard = session.messages == 0  # whether the peer has shown that it is there
        self._after_dot = False

    async def run(self) -> dict[Claim, Outcome]:
        """Raises StaleSession, and LostLease and Unavailable of the spool; the session is then cut. Cancelled, it cuts the session too."""
        extensions, host = self._session.extensions, str(self._session.host)
        if refused := needs.refusal(self._message, extensions, host):
            return dict.fromkeys(self._message.claims, refused)
        for claim in self._message.claims:
            if refused := needs.recipient_refusal(claim, extensions, host):
                self._outcomes[claim] = refused
        try:
            await self._transactions([claim for claim in self._message.claims if claim not in self._outcomes])
        except BROKEN as error:
            self._session.abort()
            if not self._heard:
                raise StaleSession from error
            self._rest(self._broken(error))
        except BareLineEnd:
            self._session.abort()
            self._rest(never("5.6.0", "the content has a bare CR or LF, which is not sent by DATA", Class.CONTENT))
        except BaseException:
            self._session.abort()
            raise
        return self._outcomes

    async def _transactions(self, claims: Sequence[Claim]) -> None:
        waiting = needs.transactions(claims, self._session.extensions)
        first = True
        while waiting and (first or (self._session.usable and not ends_session(self._outcomes))):
            self._claims, first = waiting.pop(0), False
            before = dict(self._outcomes)
            await self._transaction()
            ended = {claim: outcome for claim, outcome in self._outcomes.items() if claim not in before}
            if again := needs.next_transaction(ended):
                self._outcomes = {claim: outcome for claim, outcome in self._outcomes.items() if claim not in again}
                waiting.insert(0, again)
        for group in waiting:  # the peer's MAILMAX or 421: the rest goes over another connection
            self._outcomes.update(dict.fromkeys(group, Released()))

    def _rest(self, outcome: Outcome) -> None:
        for claim in self._claims:
            self._outcomes.setdefault(claim, outcome)
        for claim in self._message.claims:
            self._outcomes.setdefault(claim, Released())

    def _broken(self, error: BaseException) -> Outcome:
        reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or "the connection was closed"
        where = "after the final dot" if self._after_dot else "during the dialogue"
        failure = later("4.4.2", f"{self._session.host}: {reason} {where}", Class.NETWORK)
        return Deferred(failure.cause, ambiguous=self._after_dot)

    # The dialogue

    async def _transaction(self) -> None:
        session = self._session
        session.messages += 1
        self._after_dot = False
        utf8 = needs.utf8(self._message, self._claims)
        commands = [mail_command(self._message, session.extensions, self._wishes, utf8=utf8)]
        commands += [rcpt_command(claim, session.extensions, utf8=utf8) for claim in self._claims]
        chunking = "CHUNKING" in session.extensions
        if "PIPELINING" in session.extensions:
            await self._pipelined(commands, chunking=chunking)
        else:
            await self._step_by_step(commands, chunking=chunking)

    async def _pipelined(self, commands: list[bytes], *, chunking: bool) -> None:
        session, last = self._session, [] if chunking else [b"DATA\r\n"]
        session.send(b"".join(commands + last), len(commands) + len(last))
        await self._mail_reply()
        for claim in self._claims:
            if not ends_session(self._outcomes):
                self._rcpt_reply(claim, await session.reply(session.deadlines.command))
        if ends_session(self._outcomes):
            session.abort()
        elif chunking:
            await self._bdat()
        else:
            await self._data(await session.reply(session.deadlines.data))

    async def _step_by_step(self, commands: list[bytes], *, chunking: bool) -> None:
        session = self._session
        session.send(commands[0])
        await self._mail_reply()
        for claim, line in zip(self._claims, commands[1:], strict=True):
            if claim not in self._outcomes:
                session.send(line)
                self._rcpt_reply(claim, await session.reply(session.deadlines.command))
        if ends_session(self._outcomes):
            session.abort()
        elif chunking:
            await self._bdat()
        elif self._accepted():
            session.send(b"DATA\r\n")
            await self._data(await session.reply(session.deadlines.data))
        else:
            await self._forget()

    async def _mail_reply(self) -> None:
        reply = await self._session.reply(self._session.deadlines.command)
        if reply.code == 421 and not self._heard:
            self._session.abort()
            raise StaleSession
        self._heard = True
        if reply.kind != 2:
            self._outcomes.update(dict.fromkeys(self._claims, from_reply(reply)))

    def _rcpt_reply(self, claim: Claim, reply: Reply) -> None:
        if reply.code == 421:  # the end of the session, also for those who were accepted before
            for other in self._claims:
                self._outcomes.setdefault(other, from_reply(reply))
        elif reply.kind != 2:
            self._outcomes.setdefault(claim, from_reply(reply))

    def _accepted(self) -> list[Claim]:
        return [claim for claim in self._claims if claim not in self._outcomes]

    async def _data(self, go: Reply) -> None:
        session, accepted = self._session, self._accepted()
        if go.code == 354 and not accepted:
            session.send(b".\r\n")
            await session.reply(session.deadlines.final)
            await self._forget()
        elif go.code == 354:
            await self._stuffed()
            await self._last(accepted, b".\r\n")
        else:
            self._end(accepted, go)
            await self._forget()

    async def _last(self, accepted: Sequence[Claim], octets: bytes) -> None:
        """What completes the message, and the answer. Whatever fails before is not ambiguous: without these octets no peer has a whole message."""
        session = self._session
        if session.connection.buffered:  # an answer to half a message is a refusal, or a trick
            early = await session.reply(session.deadlines.final)
            session.abort()
            if early.kind in (2, 3):
                raise ProtocolError("an answer before the end of the message")
            self._end(accepted, early)
            return
        await self._doubt(accepted)
        self._after_dot = True
        session.send(octets)
        self._end(accepted, await session.reply(session.deadlines.final))

    def _end(self, accepted: Sequence[Claim], reply: Reply) -> None:
        outcome = Delivered(reply, dsn="DSN" in self._session.extensions) if reply.kind == 2 and self._after_dot else from_reply(reply)
        self._outcomes.update(dict.fromkeys(accepted, outcome))

    async def _forget(self) -> None:
        """A refused transaction may still be open on the other side."""
        if self._session.in_order and not ends_session(self._outcomes):
            await self._session.ask("RSET")

    # The content

    async def _bdat(self) -> None:
        session, accepted = self._session, self._accepted()
        if not accepted:
            await self._forget()
            return
        total = needs.size(self._message)
        session.connection.write(f"BDAT {total} LAST\r\n".encode())
        held, sent = b"", 0
        async for block in self._blocks():
            session.connection.write(held)
            sent, held = sent + len(held), block
            await session.drain()
        if sent + len(held) != total:
            raise AssertionError(f"the spool has {sent + len(held)} octets of message {self._message.id}, not {total}")
        await self._last(accepted, held)
        if not all(isinstance(self._outcomes[claim], Delivered) for claim in accepted):
            await self._forget()

    async def _stuffed(self) -> None:
        stuffer, ends = DotStuffer(), LineEnds()
        async for block in self._blocks():
            if not ends.feed(block):
                raise BareLineEnd
            self._session.connection.write(stuffer.feed(block))
            await self._session.drain()
        if not stuffer.at_line_start:
            self._session.connection.write(b"\r\n")

    async def _blocks(self) -> AsyncIterator[bytes]:
        """Headers, the blank line and the body, in blocks of BLOCK octets and the header with the first: most messages are one write."""
        head, body = self._message.headers + b"\r\n", self._message.body
        if body is not None:
            yield head + body[:BLOCK]
            for start in range(BLOCK, len(body), BLOCK):
                yield body[start : start + BLOCK]
            return
        yield head
        async for chunk in self._body(self._message.id):
            yield chunk


def ends_session(outcomes: dict[Claim, Outcome]) -> bool:
    """Whether the peer said 421: it closes the channel and the rest of the batch was not tried (RFC 5321 section 3.8)."""
    for outcome in outcomes.values():
        if isinstance(outcome, (Deferred, Bounced)) and outcome.cause.reply is not None and outcome.cause.reply.code == 421:
            return True
    return False


def released(message: ClaimedMessage) -> dict[Claim, Outcome]:
    """The outcomes of a message that was not tried."""
    return dict.fromkeys(message.claims, Released())
