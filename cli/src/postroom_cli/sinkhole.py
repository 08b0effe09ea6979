"""`postroom up --sink`: a receiving server and a name server that stand in for the world, so that a newcomer sees mail arrive, signed.

Every domain's MX is the sink; the DKIM records of the plan are published at once. Nothing leaves the machine.
"""

import contextlib
import email.parser
import pathlib
import re
from collections.abc import AsyncIterator
from typing import Self

from postroom_cli import show
from postroom_core.testing.dns import DnsServer
from postroom_core.testing.sink import Received, Sink
from postroom_operator.plan.compile import Plan

_TAG = re.compile(r"\b([dsa])=([^;\s]+)")


class Sinkhole:
    """`folder` gets every message as a file."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._dns = DnsServer()
        self._sink = Sink(on_message=self._received)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Both servers, on loopback and free ports."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with self._dns, self._sink:
            self._dns.set("*", "MX", ["10 mx.sink.test."])
            self._dns.set("mx.sink.test", "A", ["127.0.0.1"])
            yield self

    @property
    def servers(self) -> tuple[str, ...]:
        return (self._dns.target,)

    def environment(self) -> dict[str, str]:
        """What makes delivery send here."""
        return {
            "POSTROOM_RESOLVERS": self._dns.target,
            "POSTROOM_REMOTE_SMTP_PORT": str(self._sink.port),
            "POSTROOM_ALLOWED_MX_NETWORKS": "127.0.0.0/8",
        }

    def publish(self, plan: Plan) -> None:
        """Makes the plan's records visible."""
        for records in plan.records.values():
            for record in records:
                quoted = " ".join(f'"{record.value[at : at + 255]}"' for at in range(0, len(record.value), 255))
                self._dns.set(record.name, record.type, [quoted])

    def _received(self, message: Received) -> None:
        path = self._folder / f"{message.number:06d}.eml"
        path.write_bytes(message.content)
        parsed = email.parser.BytesHeaderParser().parsebytes(message.content)
        signatures = [dict(_TAG.findall(str(value))) for value in parsed.get_all("DKIM-Signature", [])]
        show.received(message, str(parsed.get("Subject", "")), signatures, path)
