"""The server's side of SMTP without sockets: a command line in, what to do out. Pure (RFC 5321 section 4.1, RFC 3030, 3207, 4954, 6409).

The verbs and when they are allowed are one table. The session (I/O) carries the actions out and tells the dialogue how TLS, AUTH and DATA ended.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from postroom_core.address import Mailbox
from postroom_core.reply import Reply
from postroom_ingress import options, policy, sasl
from postroom_ingress.options import BadOption, MailOptions
from postroom_ingress.params import BadArgument, MailArguments, RcptArguments, parse_mail, parse_rcpt
from postroom_ingress.policy import Identity

_HELO = re.compile(r"[!-'*-~]{1,255}")
_BDAT = re.compile(r"(\d{1,18})(?: (LAST))?", re.IGNORECASE | re.ASCII)
_SYNTAX = Reply(501, "5.5.4", "Syntax error in the argument")
_NO_MAIL = Reply(503, "5.5.1", "MAIL first")
# RFC 6531 section 3.5: only these commands have addresses.
_UTF8_VERBS = frozenset({b"MAIL", b"RCPT", b"VRFY"})


class Kind(Enum):
    """What a listener is for."""

    SUBMISSION = "submission"  # RFC 6409: AUTH first, always
    RELAY = "relay"  # clients known by their address, or AUTH


@dataclass(frozen=True, slots=True)
class Offer:
    """What a listener announces and allows; sizes in octets. `recipients` is the listener's own limit, `hold_seconds` RFC 4865's.

    With `repair` bare CR and LF in content become CRLF instead of a refusal.
    """

    kind: Kind
    own_name: str
    size: int
    recipients: int
    hold_seconds: int
    repair: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Only a reply; `close` ends the session behind it."""

    reply: Reply
    close: bool = False
    counts: bool = False  # against the session's errors


@dataclass(frozen=True, slots=True)
class StartTls:
    """220 and the handshake."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A SASL exchange; `initial` is the decoded initial response."""

    mechanism: str
    initial: bytes | None


@dataclass(frozen=True, slots=True)
class Check:
    """A recipient that is allowed; whether it gets mail at all is the suppression list's question, or whether it is a return path of ours."""

    rcpt: RcptArguments


@dataclass(frozen=True, slots=True)
class Data:
    """354 and the content."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`size` octets of content, the last of the message or not (RFC 3030)."""

    size: int
    last: bool
    counts: bool  # an empty chunk that ends nothing is a NOOP


@dataclass(frozen=True, slots=True)
class Discard:
    """`size` octets of content that nobody wants are read before the reply, so that the next command is found where it is."""

    size: int
    reply: Reply


Action = Say | Check | StartTls | Authenticate | Data | Chunk | Discard


@dataclass
class Transaction:
    """The envelope so far. `identity` is who sends; `chunks` whether BDAT has begun, `failed` whether one was refused."""

    mail: MailArguments
    identity: Identity | None
    options: MailOptions
    recipients: list[RcptArguments] = field(default_factory=list)
    seen: set[Mailbox] = field(default_factory=set)
    chunks: bool = False
    failed: bool = False


class Dialogue:
    """One session's state. `clients` are the identities that the peer's address has without AUTH. TLS from the first octet is `tls_started`.

    `reporter` tells who may write to a return path.
    """

    def __init__(
        self, offer: Offer, clients: list[Identity], reporter: Callable[[Mailbox], Identity | None] = lambda _: None, *, tls_offered: bool
    ) -> None:
        self._offer = offer
        self._clients = clients
        self._reporter = reporter
        self._tls = False
        self._tls_offered = tls_offered
        self.mechanisms: tuple[str, ...] = ()
        self._now = 0
        self.helo = ""
        self.esmtp = False
        self.identity: Identity | None = None
        self.transaction: Transaction | None = None
        verbs: dict[str, Callable[[str], Action]] = {
            **{"EHLO": self._ehlo, "HELO": self._helo, "MAIL": self._mail, "RCPT": self._rcpt, "DATA": self._data, "RSET": self._rset},
            **{"BDAT": self._bdat, "NOOP": self._noop, "VRFY": self._vrfy, "QUIT": self._quit, "STARTTLS": self._starttls, "AUTH": self._auth},
        }
        self._verbs = verbs

    def command(self, line: bytes, now: int) -> Action:
        """What a line (without CRLF) asks for; `now` in Unix milliseconds. Never raises."""
        self._now = now
        if b"\n" in line or b"\r" in line or b"\0" in line:
            return Say(Reply(500, "5.5.2", "A command has a bare CR, a bare LF or a NUL"), close=True)
        try:
            text = line.decode("utf-8" if line[:4].upper() in _UTF8_VERBS else "ascii")
        except UnicodeDecodeError:
            return Say(Reply(500, "5.5.2", "A command has octets outside ASCII"), close=line[:4].upper() == b"BDAT", counts=True)
        verb, _, argument = text.partition(" ")
        handler = self._verbs.get(verb.upper())
        if handler is None:
            return Say(Reply(500, "5.5.1", "Command not recognized"), counts=True)
        try:
            return handler(argument.rstrip(" "))
        except BadArgument as error:
            return Say(error.reply, counts=True)

    # Outcomes that the session reports

    def tls_started(self, mechanisms: tuple[str, ...]) -> None:
        """RFC 3207 section 4.2: everything the client said before is forgotten. `mechanisms` are those of AUTH on this connection."""
        self._tls, self.mechanisms = True, mechanisms
        self.helo, self.esmtp, self.identity, self.transaction = "", False, None, None

    def authenticated(self, identity: Identity) -> None:
        self.identity = identity

    def recipient_passed(self, rcpt: RcptArguments) -> Say:
        """The recipient of Check may have mail."""
        assert self.transaction is not None
        if rcpt.recipient not in self.transaction.seen:
            self.transaction.seen.add(rcpt.recipient)
            self.transaction.recipients.append(rcpt)
        return Say(Reply(250, "2.1.5", "Recipient ok"))

    def data_done(self) -> None:
        self.transaction = None

    def chunk_failed(self) -> None:
        """RFC 3030 section 2: what follows of the message is refused until RSET."""
        if self.transaction is not None:
            self.transaction.failed = True

    # Verbs

    def _ehlo(self, argument: str) -> Action:
        if not _HELO.fullmatch(argument):
            return Say(_SYNTAX, counts=True)
        self.helo, self.esmtp, self.transaction = argument, True, None
        lines = [f"{self._offer.own_name} greets {argument}", "PIPELINING", f"SIZE {self._offer.size}", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN"]
        lines += ["CHUNKING", "BINARYMIME", "SMTPUTF8", "DELIVERBY", f"LIMITS RCPTMAX={self._offer.recipients}"]
        if self._tls_offered and not self._tls:
            lines.append("STARTTLS")
        if self._tls:
            longest = options.date_time(self._now + 1000 * self._offer.hold_seconds)
            lines += ["REQUIRETLS", "MT-PRIORITY", f"FUTURERELEASE {self._offer.hold_seconds} {longest}", f"AUTH {' '.join(self.mechanisms)}"]
        return Say(Reply(250, "", "\n".join(lines)))

    def _offered(self) -> frozenset[str]:
        """The parameters of MAIL that belong to what EHLO announced."""
        if not self.esmtp:
            return frozenset()
        always = frozenset({"SMTPUTF8", "BY"})
        return always | {"REQUIRETLS", "MT-PRIORITY", "HOLDFOR", "HOLDUNTIL"} if self._tls else always

    def _helo(self, argument: str) -> Action:
        if not _HELO.fullmatch(argument):
            return Say(_SYNTAX, counts=True)
        self.helo, self.esmtp, self.transaction = argument, False, None
        return Say(Reply(250, "", self._offer.own_name))

    def _starttls(self, argument: str) -> Action:
        if argument:
            return Say(_SYNTAX, counts=True)
        if self._tls or not self._tls_offered:
            return Say(Reply(503, "5.5.1", "TLS is already in use" if self._tls else "STARTTLS is not offered here"), counts=True)
        if not self.esmtp:
            return Say(Reply(503, "5.5.1", "EHLO first"), counts=True)
        return StartTls()

    def _auth(self, argument: str) -> Action:
        if not self.esmtp or self.transaction is not None or self.identity is not None:
            return Say(Reply(503, "5.5.1", "AUTH is allowed once, after EHLO, outside of a transaction"), counts=True)
        if not self._tls:
            return Say(Reply(538, "5.7.11", "Encryption required for authentication"), counts=True)
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() not in (*self.mechanisms, sasl.PLUS):  # with TLS 1.3 not announced, see postroom_ingress.bindings
            return Say(Reply(504, "5.5.4", "Unknown authentication mechanism"), counts=True)
        decoded = sasl.decode(initial.encode("ascii")) if initial else None
        if initial and decoded is None:
            return Say(Reply(501, "5.5.2", "The initial response is not base64"), counts=True)
        return Authenticate(mechanism.upper(), decoded)

    def _mail(self, argument: str) -> Action:
        if not self.helo or self.transaction is not None:
            return Say(Reply(503, "5.5.1", "EHLO first" if not self.helo else "A transaction is already open"), counts=True)
        if self._offer.kind is Kind.SUBMISSION and self.identity is None:
            return Say(Reply(530, "5.7.0", "Authentication required"), counts=True)
        mail = parse_mail(argument, self._offered())
        identity = self.identity or self._client_for(mail)
        limit = self._size_limit(identity)
        if mail.size > limit:
            return Say(Reply(552, "5.3.4", f"The message is larger than the limit of {limit} octets"))
        if identity is not None and (refusal := policy.check_sender(identity, mail.sender)) is not None:
            return Say(refusal)
        if (refusal := policy.check_wishes(identity, mail.wishes)) is not None:
            return Say(refusal)
        try:
            wanted = options.decide(mail.wishes, self._now, self._offer.hold_seconds)
        except BadOption as error:
            return Say(error.reply)
        self.transaction = Transaction(mail, identity, wanted)
        return Say(Reply(250, "2.1.0", "Sender ok"))

    def _client_for(self, mail: MailArguments) -> Identity | None:
        """The client entry for this address whose senders fit; a stranger otherwise, who is refused at RCPT."""
        return next((c for c in self._clients if mail.sender is None or policy.may_use(c, mail.sender)), None)

    def _size_limit(self, identity: Identity | None) -> int:
        own = identity.least("max_message_bytes") if identity is not None else None
        return min(self._offer.size, own) if own is not None else self._offer.size

    @property
    def size_limit(self) -> int:
        """In octets, for the transaction that is open."""
        return self._size_limit(self.transaction.identity if self.transaction is not None else None)

    def _rcpt(self, argument: str) -> Action:
        transaction = self.transaction
        if transaction is None:
            return Say(_NO_MAIL, counts=True)
        if transaction.chunks:
            return Say(Reply(503, "5.5.1", "The content has begun"), counts=True)
        rcpt = parse_rcpt(argument, utf8=transaction.mail.wishes.smtputf8)
        if transaction.identity is None or transaction.identity.reports:
            return self._report_for(transaction, rcpt)
        limit = transaction.identity.least("max_recipients_per_message") or self._offer.recipients
        if len(transaction.recipients) >= min(limit, self._offer.recipients):
            return Say(Reply(452, "4.5.3", "Too many recipients in one message"))
        return Check(rcpt)

    def _report_for(self, transaction: Transaction, rcpt: RcptArguments) -> Action:
        """A stranger may write to one return path of ours, and to nobody else."""
        reporter = self._reporter(rcpt.recipient)
        if reporter is None or (transaction.identity is not None and transaction.identity != reporter):
            return Say(policy.NOT_ALLOWED, counts=True)
        if transaction.recipients:
            return Say(Reply(452, "4.5.3", "One report at a time"))
        transaction.identity = reporter
        return Check(rcpt)

    def _data(self, argument: str) -> Action:
        if argument:
            return Say(_SYNTAX, counts=True)
        refusal = self._content_refusal()
        if refusal is None and self.transaction is not None and (self.transaction.chunks or self.transaction.mail.wishes.binary):
            refusal = Reply(503, "5.5.1", "This message comes by BDAT")
        return Data() if refusal is None else Say(refusal, counts=True)

    def _bdat(self, argument: str) -> Action:
        match = _BDAT.fullmatch(argument)
        if match is None:  # where the chunk ends is not known: what follows cannot be told from commands
            return Say(Reply(501, "5.5.4", "Syntax: BDAT SIZE [LAST]"), close=True)
        size, last = int(match[1]), match[2] is not None
        if size > 2 * self._offer.size:  # nobody reads gigabytes only to refuse them
            return Say(Reply(552, "5.3.4", f"The chunk is larger than the limit of {self._offer.size} octets"), close=True)
        transaction, refusal = self.transaction, self._content_refusal()
        if transaction is None or refusal is not None:
            return Discard(size, refusal or _NO_MAIL)
        if transaction.failed:
            return Discard(size, Reply(503, "5.5.1", "A chunk of this message was refused, RSET first"))
        transaction.chunks = True
        return Chunk(size, last, counts=size == 0 and not last)

    def _content_refusal(self) -> Reply | None:
        """Why no content may come now."""
        if self.transaction is None:
            return _NO_MAIL
        return None if self.transaction.recipients else Reply(503, "5.5.1", "No valid recipients")

    def _rset(self, argument: str) -> Action:
        if argument:
            return Say(_SYNTAX, counts=True)
        self.transaction = None
        return Say(Reply(250, "2.0.0", "Ok"))

    def _noop(self, _: str) -> Action:
        return Say(Reply(250, "2.0.0", "Ok"), counts=True)

    def _vrfy(self, argument: str) -> Action:
        if not argument:
            return Say(_SYNTAX, counts=True)
        return Say(Reply(252, "2.5.0", "Cannot verify, but will accept the message and attempt delivery"), counts=True)

    def _quit(self, argument: str) -> Action:
        if argument:
            return Say(_SYNTAX, counts=True)
        return Say(Reply(221, "2.0.0", "Bye"), close=True)
