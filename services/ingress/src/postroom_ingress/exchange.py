"""One AUTH exchange over a connection (RFC 4954 section 4): carries challenges and responses between the client and a mechanism. I/O only.

What the mechanism comes to is judged by the authenticator. TLS facts that mechanisms need are gathered here from the connection, once per handshake.
"""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from ssl import SSLContext

from cryptography import x509

from postroom_core.connection import Connection, LineTooLong
from postroom_core.reply import Reply
from postroom_ingress import bindings, certificates, sasl
from postroom_ingress.authenticator import Authenticator
from postroom_ingress.policy import Identity
from postroom_ingress.sasl import Binding

AUTH_OCTETS = 12288 + 2  # RFC 4954 section 4


@dataclass(frozen=True, slots=True)
class Handshake:
    """What AUTH needs to know of the TLS connection: what to bind to, and the certificate that the client showed and TLS has verified."""

    binding: Binding = field(default_factory=Binding)
    certificate: x509.Certificate | None = None


def handshake(connection: Connection, end_point: Callable[[SSLContext], bytes]) -> Handshake:
    """Of a connection in clear it is empty. To be called right after the handshake: our certificate may change later."""
    tls = connection.tls
    if tls is None:
        return Handshake()
    shown = tls.getpeercert(binary_form=True)
    binding = bindings.of(tls.version() or "", end_point(tls.context), tls.get_channel_binding("tls-unique") or b"")
    return Handshake(binding, certificates.load(shown) if shown else None)


class Exchange:
    """For one session; `run` once for each AUTH."""

    def __init__(self, connection: Connection, authenticator: Authenticator, secret: bytes, seconds: float) -> None:
        self._connection = connection
        self._authenticator = authenticator
        self._secret = secret
        self._seconds = seconds

    async def run(self, name: str, initial: bytes | None, tls: Handshake, peer: str) -> Identity | Reply:
        """The identity, or the reply: 421 and 535 of the authenticator, 454, or 500 and 501 for a malformed exchange."""
        mechanism = self._mechanism(name, tls.binding)
        step = mechanism.start(initial)
        while isinstance(step, sasl.Challenge):
            response = await self._challenge(step)
            if isinstance(response, Reply):
                return response
            step = mechanism.respond(response)
        if isinstance(step, sasl.Failed):
            return Reply(501, "5.5.2", "The authentication exchange is malformed") if step.syntax else await self._authenticator.failed()
        outcome = await self._authenticator.check(step, peer, tls.certificate)
        if isinstance(outcome, Reply) and outcome.code == 535 and isinstance(mechanism, sasl.Bearer):
            answered = await self._challenge(mechanism.rejected)  # RFC 7628 section 3.2.3: whatever is answered, it has failed
            return answered if isinstance(answered, Reply) else outcome
        return outcome

    def _mechanism(self, name: str, binding: Binding) -> sasl.Mechanism:
        match name:
            case "PLAIN":
                return sasl.Plain()
            case "LOGIN":
                return sasl.Login()
            case "EXTERNAL":
                return sasl.External()
            case "OAUTHBEARER" | "XOAUTH2":
                return sasl.Bearer(name)
            case _:
                return sasl.Scram(self._authenticator.verifiers, self._secret, binding, plus=name == sasl.PLUS)

    async def _challenge(self, challenge: sasl.Challenge) -> bytes | Reply:
        self._connection.write(b"334 " + base64.b64encode(challenge.data) + b"\r\n")
        await self._connection.drain()
        try:
            async with asyncio.timeout(self._seconds):
                line = await self._connection.line(AUTH_OCTETS)
        except LineTooLong:
            return Reply(500, "5.5.6", "The authentication line is too long")
        if line == b"*":
            return Reply(501, "5.7.0", "Authentication cancelled")
        response = sasl.decode(line)
        return response if response is not None else Reply(501, "5.5.2", "The response is not base64")
