"""Could a stranger relay through our own listeners? Speaks SMTP up to RCPT as a stranger would, and never sends DATA, so no message can be accepted.

Connects from an address of this machine that is not loopback, because that is what a stranger looks like to the listener. A 2xx to a foreign
recipient, in any of the spellings that open relays are found with, is a relay.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

SECONDS = 10.0
MOST_LINE = 4096
STRANGER, ELSEWHERE = "probe@stranger.invalid", "probe@elsewhere.invalid"


@dataclass(frozen=True, slots=True)
class Probe:
    """What the listener said to one envelope."""

    reverse_path: str
    recipient: str
    reply: str

    @property
    def relayed(self) -> bool:
        return self.reply.startswith("2")


def envelopes(domain: str) -> list[tuple[str, str]]:
    """(reverse-path, recipient): a stranger, a forger of our domain, a bounce, and the old spellings of routing through us."""
    host, tail = "elsewhere.invalid", f"@{domain}"
    spellings = [f"probe%{host}{tail}", f"{tail}:probe@{host}", f'"probe@{host}"{tail}', f"{host}!probe{tail}"]
    return [(STRANGER, ELSEWHERE), (f"probe{tail}", ELSEWHERE), ("", ELSEWHERE), *((STRANGER, spelling) for spelling in spellings)]


def stranger_address(listen: str) -> str | None:
    """An address of this machine outside of loopback from which `listen` can be reached; None when there is none."""
    target = ipaddress.ip_address(listen)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1" if target.version == 4 else "2001:db8::1", 9))  # asks the routing table, sends nothing
            address = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if ipaddress.ip_address(address).is_loopback else address


async def probe(host: str, port: int, source: str, domain: str) -> list[Probe]:
    """One connection per envelope. Raises OSError or TimeoutError when the listener does not answer."""
    return [await _one(host, port, source, envelope) for envelope in envelopes(domain)]


async def _one(host: str, port: int, source: str, envelope: tuple[str, str]) -> Probe:
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0), limit=MOST_LINE)
        try:
            reply = await _reply(reader)
            for command in ("EHLO stranger.invalid", f"MAIL FROM:<{envelope[0]}>", f"RCPT TO:<{envelope[1]}>"):
                if not reply.startswith("2"):
                    break
                writer.write(f"{command}\r\n".encode())
                reply = await _reply(reader)
            return Probe(*envelope, reply)
        finally:
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> str:
    """The last line of a reply; "" when the listener hung up."""
    while True:
        try:
            line = (await reader.readline()).decode("utf-8", "replace").rstrip("\r\n")
        except ValueError as error:  # a line over the limit
            raise OSError("the listener answers with an endless line") from error
        if line[3:4] != "-":
            return line
