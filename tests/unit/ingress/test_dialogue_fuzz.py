"""Whole sessions at random against the pure dialogue, as a state machine. What ever breaks it becomes a test of its own."""

import re
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postroom_core.documents import Domain
from postroom_core.reply import Reply
from postroom_ingress.dialogue import Authenticate, Check, Chunk, Data, Dialogue, Discard, Kind, Offer, Say, StartTls, Transaction
from postroom_ingress.policy import Identity, may_use

DOMAIN = Domain(name="d.example", tenant="t", pool="p", active=True, signed=True)
USER = Identity(DOMAIN, "u", ("*@d.example",), authenticated=True)
BOX = Identity(DOMAIN, "box", ("*@d.example",), authenticated=False)
NOW = 1_800_000_000_000
SIZE, RECIPIENTS, HOLD = 1000, 3, 60
MECHANISMS = ("PLAIN", "LOGIN")

paths = st.sampled_from(
    ["<>", "<a@d.example>", "<a@e.example>", "<ü@d.example>", '<"a b"@d.example>', "<a@[::1]>", "<@x:a@d.example>", "a@d.example", "<a>"]
)
parameters = st.lists(
    st.sampled_from(
        [
            *("SIZE=5", "SIZE=5000", "SIZE=x", "BODY=8BITMIME", "BODY=BINARYMIME", "SMTPUTF8", "REQUIRETLS", "HOLDFOR=9", "HOLDFOR=99", "BY=9;R"),
            *("BY=0;R", "MT-PRIORITY=3", "RET=FULL", "ENVID=x", "ENVID=+", "AUTH=<>", "NOTIFY=NEVER", "ORCPT=rfc822;x", "X=1", "="),
        ]
    ),
    max_size=3,
).map(lambda found: "".join(f" {parameter}" for parameter in found))
lines = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"RSET", b"QUIT", b"NOOP x", b"VRFY x", b"DATA", b"DATA x", b"STARTTLS", b"EHLO c", b"HELO c", b"EHLO", b"AUTH PLAIN", b"AUTH X"]
    ),
    st.sampled_from(
        [b"BDAT 5", b"BDAT 0", b"BDAT 5 LAST", b"BDAT -1", b"BDAT 99999", b"BDAT 1500", b"bdat 5 last", b"AUTH LOGIN =", b"AUTH PLAIN !"]
    ),
    st.tuples(st.sampled_from(["MAIL FROM:", "RCPT TO:", "mail from: ", "RCPT FROM:"]), paths, parameters).map(lambda parts: "".join(parts).encode()),
)


class Session(RuleBasedStateMachine):
    """Plays the session's part: whatever the dialogue asks for is done, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.dialogue = Dialogue(Offer(Kind.RELAY, "mta.example", SIZE, RECIPIENTS, HOLD), [], tls_offered=True)
        self.tls = False
        self.identity: Identity | None = None
        self.clients: list[Identity] = []

    def start(self, kind: Kind, clients: list[Identity], *, tls: bool) -> None:
        self.tls, self.identity, self.clients = tls, None, clients
        self.dialogue = Dialogue(Offer(kind, "mta.example", SIZE, RECIPIENTS, HOLD), clients, tls_offered=not tls)
        if tls:
            self.dialogue.tls_started(MECHANISMS)

    @rule(kind=st.sampled_from(Kind), known=st.booleans(), tls=st.booleans())
    def connect(self, kind: Kind, known: bool, tls: bool) -> None:
        self.start(kind, [BOX] if known and kind is Kind.RELAY else [], tls=tls)

    @precondition(lambda self: self.tls and self.dialogue.transaction is None and self.identity is None)
    @rule()
    def log_in(self) -> None:
        self.dialogue.command(b"EHLO c", NOW)
        assert isinstance(self.dialogue.command(b"AUTH PLAIN", NOW), Authenticate)
        self.dialogue.authenticated(USER)
        self.identity = USER

    @rule(line=lines, good=st.booleans())
    def say(self, line: bytes, good: bool) -> None:
        before = self.dialogue.transaction
        action = self.dialogue.command(line, NOW)
        match action:
            case Say(reply=reply):
                self.check(reply)
            case Check(rcpt=rcpt):
                if good:
                    self.check(self.dialogue.recipient_passed(rcpt).reply)
            case StartTls():
                assert not self.tls, "STARTTLS is never offered twice"
                self.dialogue.tls_started(MECHANISMS)
                self.tls, self.identity = True, None
                assert self.dialogue.transaction is None
                assert not self.dialogue.esmtp
            case Authenticate():
                assert self.tls, "no password in clear"
                assert before is None
                assert self.identity is None
            case _:
                self.content(action, before, good=good)

    def content(self, action: Data | Chunk | Discard, before: Transaction | None, *, good: bool) -> None:
        match action:
            case Data():
                self.check_envelope()
                assert before is not None
                assert not before.chunks
                self.dialogue.data_done()
            case Chunk(size=size, last=last):
                self.check_envelope()
                assert size <= 2 * SIZE
                if last:
                    self.dialogue.data_done()
                elif not good:
                    self.dialogue.chunk_failed()
            case Discard(size=size, reply=reply):
                assert size <= 2 * SIZE
                self.check(reply)
                assert reply.kind == 5

    def check(self, reply: Reply) -> None:
        assert 200 <= reply.code < 600
        if reply.enhanced:
            assert reply.enhanced[0] == str(reply.code)[0]
        else:
            assert reply.code == 250
        assert re.fullmatch(r"[^\r\0]*", reply.text)

    def check_envelope(self) -> None:
        """P5: whoever may send content is known, and sends as somebody it may."""
        transaction = self.dialogue.transaction
        assert transaction is not None
        assert transaction.identity is not None
        assert not transaction.failed
        assert 0 < len(transaction.recipients) <= RECIPIENTS
        assert transaction.identity in (self.identity, *self.clients)
        assert transaction.mail.sender is None or may_use(transaction.identity, transaction.mail.sender)
        if not transaction.mail.wishes.smtputf8:
            assert all(str(r.recipient).isascii() for r in transaction.recipients)
        assert transaction.options.hold_until <= NOW + 1000 * HOLD
        assert not transaction.options.hold_until or transaction.identity.authenticated
        assert not transaction.options.priority, "nobody here may ask for one"

    @invariant()
    def nobody_is_known_without_proof(self) -> None:
        assert self.dialogue.identity is self.identity


TestSession: Any = Session.TestCase
