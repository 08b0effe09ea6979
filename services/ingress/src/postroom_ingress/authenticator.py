"""Who is it? One place for SMTP and HTTP: passwords, proofs, tokens and client certificates → an identity, or the reply that refuses it.

Every failure has the same text and takes the same time, whether the user is unknown, the password wrong or the address not allowed (A8). Failures are
throttled over all sessions. Never says to anybody but the log why.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

import structlog
from cryptography import x509
from prometheus_client import Counter

from postroom_core.clock import Clock
from postroom_core.documents import Verifier
from postroom_core.errors import Unavailable
from postroom_core.reply import Reply
from postroom_ingress.passwords import Passwords
from postroom_ingress.policy import Identity, Login, Policy, of_login
from postroom_ingress.sasl import Check, CheckCertificate, CheckPassword, CheckToken, Disproven, Proven
from postroom_ingress.throttle import Attempt, Throttle
from postroom_ingress.tokens import Tokens

log = structlog.get_logger(__name__)
AUTHENTICATIONS = Counter("postroom_ingress_authentications", "Authentications by outcome", ["outcome"])

FAILED = Reply(535, "5.7.8", "Authentication failed")
UNAVAILABLE = Reply(454, "4.7.0", "The credential cannot be checked now, try again later")


class Authenticator:
    """One for the process. `failure_seconds` is what every failure takes: longer than any check on a machine that is not overloaded."""

    def __init__(self, policy: Callable[[], Policy], clock: Clock, tokens: Tokens | None, failure_seconds: float) -> None:
        self._policy = policy
        self._clock = clock
        self._tokens = tokens
        self._failure_seconds = failure_seconds
        self._passwords = Passwords(clock)
        self._throttle = Throttle()

    @property
    def has_tokens(self) -> bool:
        return self._tokens is not None

    def verifiers(self, username: str) -> Sequence[Verifier]:
        """Of a credential, none of an unknown one."""
        login = self._policy().login(username)
        return login.credential.verifiers if login is not None else ()

    async def check(self, claim: Check, address: str, certificate: x509.Certificate | None = None) -> Identity | Reply:
        """The identity, or 421, 454 or 535. `certificate` is what the client showed in a verified handshake."""
        began = self._clock.monotonic()
        attempt = self._attempt(claim, address)
        if (refusal := self._throttled(attempt)) is not None:
            return refusal
        try:
            login = await self._login(claim, attempt, certificate)
        except Unavailable as error:
            AUTHENTICATIONS.labels("unavailable").inc()
            log.warning("authentication not possible", reason=str(error))
            return UNAVAILABLE
        identity = of_login(login, address) if login is not None else None
        if identity is None:
            return await self._failed(attempt, began)
        self._throttle.succeeded(attempt, self._clock.monotonic())
        AUTHENTICATIONS.labels("succeeded").inc()
        return identity

    async def failed(self) -> Reply:
        """535 after the time of a failure, for an exchange that came to no check."""
        await asyncio.sleep(self._failure_seconds)
        AUTHENTICATIONS.labels("failed").inc()
        return FAILED

    def _attempt(self, claim: Check, address: str) -> Attempt:
        match claim:
            case CheckPassword(username=username, password=password):
                return Attempt(username, address, self._passwords.digest(username, password))
            case Proven(username=username) | Disproven(username=username):
                return Attempt(username, address)
            case CheckToken() | CheckCertificate():
                return Attempt("", address)

    def _throttled(self, attempt: Attempt) -> Reply | None:
        wait = self._throttle.wait(attempt, self._clock.monotonic())
        if not wait:
            return None
        AUTHENTICATIONS.labels("throttled").inc()
        return Reply(421, "4.7.0", f"Too many failed authentications, try again in {math.ceil(wait)} s")

    async def _failed(self, attempt: Attempt, began: float) -> Reply:
        refusal = self._throttled(attempt)
        if refusal is None:
            self._throttle.failed(attempt, self._clock.monotonic())
            AUTHENTICATIONS.labels("failed").inc()
            log.info("authentication failed", client=attempt.address)
        await asyncio.sleep(max(0.0, began + self._failure_seconds - self._clock.monotonic()))
        return refusal or FAILED

    async def _login(self, claim: Check, attempt: Attempt, certificate: x509.Certificate | None) -> Login | None:
        policy = self._policy()
        match claim:
            case CheckPassword(username=username, password=password):
                return await self._password(policy.login(username), attempt, password)
            case Proven(username=username):
                return policy.login(username)
            case CheckToken(username=username, token=token) if self._tokens is not None:
                subject = await self._tokens.subject(token)
                return policy.of_service_account(subject.namespace, subject.name, username) if subject is not None else None
            case CheckCertificate(username=username) if certificate is not None:
                return policy.of_certificate(certificate, username)
            case _:
                return None

    async def _password(self, login: Login | None, attempt: Attempt, password: str) -> Login | None:
        verifiers = login.credential.verifiers if login is not None else ()
        if self._passwords.remembered(verifiers, password):
            return login
        right = await self._passwords.right(verifiers, password, lambda: self._throttle.wait(attempt, self._clock.monotonic()) == 0)
        return login if right else None

    def __repr__(self) -> str:
        return f"Authenticator(tokens={self.has_tokens})"
