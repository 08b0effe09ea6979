"""One SMTP session: carries out what the dialogue decides. I/O only.

Replies are written in order and sent together while pipelined commands wait (RFC 2920). Data that a client sends where it must wait for a reply
(behind STARTTLS, AUTH, DATA, before the greeting) cuts the session: it is an injection or a smuggler (A3, A4). Every wait has a deadline, the session
has one, and errors are counted: first they cost time, then the session. A message that is on its way when the session's time is up is still answered.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

from postroom_core import returnpath
from postroom_core.connection import Connection, ConnectionClosed, LineTooLong
from postroom_core.ids import new_message_id
from postroom_core.reply import Reply
from postroom_core.telemetry import span, traceparent
from postroom_ingress import envelope, sasl
from postroom_ingress.authenticator import Authenticator
from postroom_ingress.connections import Connections
from postroom_ingress.dialogue import Action, Authenticate, Check, Chunk, Data, Dialogue, Discard, Kind, Offer, Say, StartTls
from postroom_ingress.exchange import Exchange, Handshake, handshake
from postroom_ingress.policy import Identity, Policy
from postroom_ingress.reception import Order, Pace, Reception, Services
from postroom_ingress.stamp import Trace

log = structlog.get_logger(__name__)
SESSIONS = Counter("postroom_ingress_sessions", "Sessions by how they ended", ["end"])

# RFC 5321 section 4.5.3.1.4 plus what SIZE, BODY, DSN (RFC 3461: 500 for ORCPT) and AUTH= may add.
COMMAND_OCTETS = 2048
# Every error over the first costs a second, the hard limit the session; harmless commands (NOOP, VRFY) count too.
SOFT_ERRORS = 10
HARD_ERRORS = 20
# Guessing: a second for each wrong password, the session for the third.
MOST_FAILURES = 3

CLOSING = Reply(421, "4.3.2", "The service is closing, try again soon")
TIMEOUT = Reply(421, "4.4.2", "Timeout, closing the connection")
ERRORS = Reply(421, "4.7.0", "Too many errors, closing the connection")
FULL = Reply(421, "4.7.0", "Too many connections with this credential, close some first")
EARLY = Reply(554, "5.5.0", "Data was sent before the reply it had to wait for")
LONG_LINE = Reply(500, "5.5.2", "The command line is too long")


@dataclass(frozen=True, slots=True)
class Listener:
    """What all sessions of one listener share. `policy`, `tls`, `end_point` and `secret` give what is in force now."""

    offer: Offer
    policy: Callable[[], Policy]
    tls: Callable[[], ssl.SSLContext | None]
    end_point: Callable[[ssl.SSLContext], bytes]
    authenticator: Authenticator
    connections: Connections
    services: Services
    secret: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Client:
    """Who is connected: its own address, also behind a load balancer. `known_by_address` is whether the address may speak for it."""

    address: str
    known_by_address: bool = True


class Session:
    """Made for one connection; `run` until it ends."""

    def __init__(self, connection: Connection, listener: Listener, client: Client) -> None:
        self._connection = connection
        self._listener = listener
        self._deadlines = listener.services.deadlines
        self._peer = client.address
        offered = connection.tls is None and listener.tls() is not None
        known = listener.offer.kind is Kind.RELAY and client.known_by_address
        clients = listener.policy().clients_at(self._peer) if known else []
        self._watched = listener.offer.kind is Kind.RELAY and not clients
        reporter = listener.policy().reporter if listener.offer.kind is Kind.RELAY else lambda _: None
        self._dialogue = Dialogue(listener.offer, clients, reporter, tls_offered=offered)
        self._handshake = Handshake()
        self._counted: Identity | None = None  # against the limits of connections
        if connection.tls is not None:
            self._encrypted()
        self._errors = 0
        self._failures = 0
        self._reception: Reception | None = None  # a message of which chunks have come
        self._busy = False
        self._closing = False
        self._deadline = asyncio.timeout(self._deadlines.session)

    async def run(self) -> None:
        """Never raises for what a client does. Returns when nothing of the connection is left."""
        end = "closed"
        try:
            async with self._deadline:
                await self._talk()
        except TimeoutError:
            end = "timeout"
            self._connection.write(TIMEOUT.encode())
        except (ConnectionClosed, OSError, ssl.SSLError):
            end = "lost"
        finally:
            self._abandon()
            if self._counted is not None:
                self._listener.connections.leave(self._counted)
            SESSIONS.labels(end).inc()
            await self._connection.end(self._deadlines.closing)

    def drain(self) -> None:
        """Asks the session to end: at once when it waits for a command, else after the transaction it is in (RFC 5321 section 3.8)."""
        self._closing = True
        if not self._busy:
            self._connection.write(CLOSING.encode())
            self._connection.close()

    async def _talk(self) -> None:
        if await self._talks_early():
            self._say(EARLY)
            return
        self._say(Reply(220, "", f"{self._listener.offer.own_name} ESMTP Postroom"))
        while True:
            if not self._connection.buffered:
                await self._flush()
            try:
                line = await self._line(COMMAND_OCTETS)
            except LineTooLong:
                if not await self._carry_out(Say(LONG_LINE, counts=True)):
                    return
                continue
            self._busy = True
            going_on = await self._carry_out(self._dialogue.command(line, self._listener.services.clock.now_ms()))
            if self._dialogue.transaction is None:  # RSET, EHLO
                self._abandon()
            self._busy = False
            if not going_on:
                return
            if self._closing:
                self._say(CLOSING)
                return

    async def _talks_early(self) -> bool:
        """Whether the client sends before it is greeted, as programs do that do not read replies. Strangers are watched for a while, when so set."""
        if self._watched and self._deadlines.greeting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deadlines.greeting):
                    await self._connection.arrival()
        return self._connection.buffered > 0

    async def _line(self, limit: int) -> bytes:
        """The next command; silence may be long, but a line that has begun must end soon."""
        if (pipelined := self._connection.line_now(limit)) is not None:
            return pipelined
        async with asyncio.timeout(self._deadlines.idle):
            await self._connection.arrival()
        async with asyncio.timeout(self._deadlines.line):
            return await self._connection.line(limit)

    def _say(self, reply: Reply) -> None:
        self._connection.write(reply.encode())

    async def _flush(self) -> None:
        """Waits for a client that reads its replies slowly no longer than for one that says nothing."""
        if self._connection.drained():
            return
        async with asyncio.timeout(self._deadlines.idle):
            await self._connection.drain()

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Content has deadlines of its own; the session's must not fall between a commit and its reply, which would make a second copy."""
        when = self._deadline.when()
        self._deadline.reschedule(None)
        try:
            yield
        finally:
            self._deadline.reschedule(when)

    async def _carry_out(self, action: Action) -> bool:
        """Whether the session goes on."""
        if not isinstance(action, Say | Check | Chunk | Discard) and self._connection.buffered:
            self._say(EARLY)
            return False
        match action:
            case Say():
                return await self._answer(action)
            case Check():
                return await self._answer(await self._check(action))
            case StartTls():
                return await self._start_tls()
            case Authenticate():
                return await self._authenticate(action)
            case Data():
                return await self._data()
            case Chunk():
                return await self._chunk(action)
            case Discard():
                await Pace(self._connection, self._listener.services).discard(action.size)
                return await self._answer(Say(action.reply, counts=True))

    async def _answer(self, action: Say) -> bool:
        self._errors += action.counts
        if self._errors > HARD_ERRORS:
            self._say(ERRORS)
            return False
        if action.counts and self._errors > SOFT_ERRORS:
            await asyncio.sleep(self._deadlines.error)
        self._say(action.reply)
        return not action.close

    async def _check(self, action: Check) -> Say:
        transaction = self._dialogue.transaction
        assert transaction is not None and transaction.identity is not None
        domain, spool = transaction.identity.domain, self._listener.services.spool
        if transaction.identity.reports:
            address = str(action.rcpt.recipient)
            forged = await spool.forged(domain.delivery_target, address) if returnpath.parse(address) is not None else None
            return Say(forged, counts=True) if forged is not None else self._dialogue.recipient_passed(action.rcpt)
        refusal = await spool.suppressed(domain.delivery_target, domain.tenant, domain.name, str(action.rcpt.recipient))
        return Say(refusal) if refusal is not None else self._dialogue.recipient_passed(action.rcpt)

    async def _start_tls(self) -> bool:
        context = self._listener.tls()
        if context is None:
            self._say(Reply(454, "4.7.0", "TLS is not available now"))
            return True
        self._say(Reply(220, "2.0.0", "Ready to start TLS"))
        await self._flush()
        await self._connection.start_tls(context, server_side=True, handshake_seconds=self._deadlines.tls)
        self._encrypted()
        return True

    # AUTH

    def _encrypted(self) -> None:
        """TLS is in use from now on."""
        self._handshake = handshake(self._connection, self._listener.end_point)
        shown = self._handshake.certificate is not None
        tokens = self._listener.authenticator.has_tokens
        self._dialogue.tls_started(sasl.mechanisms(self._handshake.binding, certificate=shown, tokens=tokens))

    async def _authenticate(self, action: Authenticate) -> bool:
        exchange = Exchange(self._connection, self._listener.authenticator, self._listener.secret(), self._deadlines.auth)
        outcome = await exchange.run(action.mechanism, action.initial, self._handshake, self._peer)
        if isinstance(outcome, Identity) and not self._listener.connections.enter(outcome):
            outcome = FULL
        if isinstance(outcome, Identity):
            self._counted = outcome
            self._dialogue.authenticated(outcome)
            return await self._answer(Say(Reply(235, "2.7.0", "Authentication succeeded")))
        self._failures += outcome.code == 535
        if self._failures >= MOST_FAILURES:
            outcome = Reply(421, "4.7.0", "Too many failed authentications, closing the connection")
        return await self._answer(Say(outcome, close=outcome.code == 421, counts=outcome.code != 535))

    # Content

    async def _data(self) -> bool:
        with span("reception") as current:
            order = self._order(chunks=False)
            reception = Reception(order, self._listener.services)
            self._say(Reply(354, "", "End data with <CRLF>.<CRLF>"))
            await self._flush()
            with self._undisturbed():
                reply = await reception.data(self._connection)
                current.set_attribute("smtp.reply_code", reply.code)
                self._answered(reply, order.envelope.message_id)
        return True

    async def _chunk(self, action: Chunk) -> bool:
        if self._reception is None:
            with span("reception"):
                self._reception = Reception(self._order(chunks=True), self._listener.services)
        with self._undisturbed():
            reply = await self._reception.chunk(self._connection, action.size, last=action.last)
            if action.last:
                message_id, self._reception = self._reception.message_id, None
                self._answered(reply, message_id)
                return True
        if reply.kind != 2:
            self._abandon()
            self._dialogue.chunk_failed()
        return await self._answer(Say(reply, counts=action.counts))

    def _abandon(self) -> None:
        if self._reception is not None:
            self._reception.abandon()
            self._reception = None

    def _answered(self, reply: Reply, message_id: str) -> None:
        transaction = self._dialogue.transaction
        name = transaction.identity.name if transaction is not None and transaction.identity is not None else ""
        log.info("message answered", message_id=message_id, code=reply.code, enhanced=reply.enhanced, identity=name)
        self._dialogue.data_done()
        self._say(reply)

    def _order(self, *, chunks: bool) -> Order:
        transaction = self._dialogue.transaction
        assert transaction is not None
        assert transaction.identity is not None
        clock, offer = self._listener.services.clock, self._listener.offer
        now = clock.now_ms()
        message_id = new_message_id(now)
        tls = self._connection.tls
        cipher = tls.cipher() if tls is not None else None
        trace = Trace(
            helo=self._dialogue.helo,
            client=self._peer,
            own_name=offer.own_name,
            message_id=message_id,
            received_at=now,
            esmtp=self._dialogue.esmtp,
            tls_cipher=cipher[0] if cipher else "",
            authenticated=transaction.identity.authenticated,
            recipient=str(transaction.recipients[0].recipient) if len(transaction.recipients) == 1 else "",
            utf8=transaction.mail.wishes.smtputf8,
        )
        return Order(
            envelope=envelope.of(transaction, message_id, now, self._peer, traceparent()),
            identity=transaction.identity,
            trace=trace,
            size_limit=self._dialogue.size_limit,
            submission=offer.kind is Kind.SUBMISSION,
            chunks=chunks,
            report=transaction.identity.reports,
            repair=offer.repair,
        )
