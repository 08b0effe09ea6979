"""Sends the daily reports about TLS (RFC 8460) to the domains that ask for them. I/O; `tlsrpt` makes what is sent.

Every process of the queue looks for yesterday's results now and then. A lease in the spool gives a domain to one of them at a time; a report by mail
is a message of the queue whose id follows from domain, day and address, so it is accepted once whoever tries; a report by HTTPS is noted as sent.
When all addresses have it, or none wants it, the results are forgotten. A day that could not be told within the next is lost.
"""

import hashlib
from dataclasses import dataclass

import structlog
from yarl import URL

from postroom_core.clock import Clock
from postroom_core.documents import SenderDomain
from postroom_core.errors import Transient
from postroom_core.ids import new_message_id
from postroom_delivery import retry, tlsrpt
from postroom_delivery.https import Https
from postroom_delivery.pools import Pools
from postroom_delivery.resolver import Resolver
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import MailOptions, NewMessage, NewRecipient
from postroom_delivery.tlsrpt import DAY_MS, Reporter

log = structlog.get_logger(__name__)
# Reports of all senders at midnight would be a storm; section 4.1 suggests a delay of up to four hours.
SPREAD_MS = 4 * 3_600_000
LOOK_SECONDS = 300.0
# Longer than a report takes at the worst, and short enough that a domain that could not be asked is asked again some dozen times within the day.
LEASE_MS = 900_000
HTTPS_SECONDS = 60.0
PAGE = 500
CREDENTIAL = "tls-report"
_LEASE, _SENT = "tls-report-lease", "tls-report-sent"


@dataclass(frozen=True, slots=True)
class World:
    """What a report needs of the world: who asks, and the way by HTTPS."""

    resolver: Resolver
    https: Https


class TlsReporting:
    """One for the process; `holder` names it."""

    def __init__(self, spool: Spool, pools: Pools, world: World, reporter: Reporter, holder: str, clock: Clock) -> None:
        self._spool = spool
        self._pools = pools
        self._world = world
        self._reporter = reporter
        self._holder = holder
        self._clock = clock

    def __repr__(self) -> str:
        return f"TlsReporting({self._reporter})"

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> int:
        """Sends what is due of yesterday; how many domains were done with."""
        day = self._clock.now_ms() // DAY_MS - 1
        await self._spool.forget_tls(day - 1)
        done, after = 0, ""
        while domains := await self._spool.tls_domains(day, after, PAGE):
            for domain in domains:
                done += await self._domain(day, domain)
            after = domains[-1]
        return done

    def due_at(self, day: int, domain: str) -> int:
        """When a domain's day is told: at the same time whoever tells it, and at another for each domain."""
        digest = hashlib.blake2b(f"{self._reporter.domain} {domain}".encode(), digest_size=8).digest()
        return (day + 1) * DAY_MS + int.from_bytes(digest, "big") % SPREAD_MS

    async def _domain(self, day: int, domain: str) -> bool:
        now, name = self._clock.now_ms(), f"{day} {domain}"
        if now < self.due_at(day, domain) or await self._spool.agree(now, _LEASE, name, self._holder, now + LEASE_MS) != self._holder:
            return False
        try:
            for address in tlsrpt.addresses(await self._world.resolver.txt(f"_smtp._tls.{domain}")):
                await self._send(day, domain, address)
        except Transient as error:  # the lease ends, and it is tried again
            log.warning("a report about TLS was not sent yet", domain=domain, reason=str(error))
            return False
        await self._spool.forget_tls(day, domain)
        return True

    async def _send(self, day: int, domain: str, address: str) -> None:
        """Raises Transient when it may be possible later."""
        now, name = self._clock.now_ms(), f"{day} {domain} {address}"
        if await self._spool.recall(now, _SENT, name) is not None:
            return
        digest = hashlib.blake2b(f"{self._reporter.address} {name}".encode(), digest_size=10).digest()
        report_id = new_message_id(self.due_at(day, domain), int.from_bytes(digest, "big"))
        document = tlsrpt.report(day, await self._spool.tls_counts(day, domain), self._reporter, report_id)
        if to := tlsrpt.mailbox(address):
            await self._mail(*self._message(document, day, domain, to))
        else:
            body = tlsrpt.packed(document)
            status, _ = await self._world.https.post(URL(address), body, {"Content-Type": "application/tlsrpt+gzip"}, seconds=HTTPS_SECONDS)
            if status // 100 != 2:
                raise Transient(f"{address[:100]} answered with status {status}")
        await self._spool.remember(now, _SENT, name, "", now + 3 * DAY_MS)
        log.info("a report about TLS was sent", domain=domain, report=report_id)

    def _message(self, document: dict[str, object], day: int, domain: str, to: str) -> tuple[NewMessage, bytes]:
        now, sender = self._clock.now_ms(), self._sender()
        headers, body = tlsrpt.mail(document, domain, day, self._reporter, to, now)
        message = NewMessage(
            id=str(document["report-id"]),
            tenant=sender.tenant,
            pool=sender.pool,
            domain=sender.name,
            credential=CREDENTIAL,
            reverse_path=self._reporter.address,
            recipients=(NewRecipient(to, self._pools.destination(sender.pool, to.rpartition("@")[2])),),
            headers=headers,
            body_size=len(body),
            eight_bit=False,
            received_at=now,
            expires_at=retry.expires_at(now, self._pools.get(sender.pool).retry),
            options=MailOptions(tls_optional=True),  # a report that TLS fails must arrive although TLS fails (section 3)
            sign=True,
        )
        return message, body

    def _sender(self) -> SenderDomain:
        """The MailDomain that reports are sent by. Raises Transient when there is none now: an unsigned report would be ignored (section 3)."""
        found = self._pools.sender(self._reporter.domain)
        if found is None or not found.signed or not found.pool:
            raise Transient(f"reports by mail need a MailDomain {self._reporter.domain} with DKIM")
        return found

    async def _mail(self, message: NewMessage, body: bytes) -> None:
        if (refusal := await self._spool.accept(message, (0, body))) is not None:
            raise Transient(str(refusal))
