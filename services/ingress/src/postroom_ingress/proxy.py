"""The PROXY protocol, version 1 and 2: whose connection a load balancer passes on. Pure (the specification is HAProxy's proxy-protocol.txt).

The header comes before everything else, also before a TLS handshake, and must be read to its last octet and not one further: `need` says how many
octets are still part of it, `source` reads it when it is whole. Who may send one is the listener's business.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_1 = b"PROXY "
LONGEST_1 = 107  # the specification's bound
# Addresses of a Unix socket take 216; load balancers add some hundred octets of TLVs, certificates' names included. 64 KiB are allowed, never sent.
LONGEST_2 = 4096
_ADDRESSES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}  # unspecified, TCP over IPv4, over IPv6, Unix stream
_CRC32C = 0x03
_PORT = re.compile(r"0|[1-9]\d{0,4}", re.ASCII)


class BadHeader(ValueError):
    """No PROXY header; the connection is of no use, because nobody knows whose it is."""


@dataclass(frozen=True, slots=True)
class Source:
    """`address` is the client's, None when the header does not tell: a health check of the load balancer itself (LOCAL), or UNKNOWN."""

    address: str | None


def need(data: bytes) -> int:
    """How many octets at least are missing; 0 when the header is whole. Raises BadHeader as soon as it cannot become one."""
    if data[:12] == SIGNATURE:
        if len(data) < 16:
            return 16 - len(data)
        length = int.from_bytes(data[14:16], "big")
        if length > LONGEST_2:
            raise BadHeader("longer than any load balancer's")
        return 16 + length - len(data)
    if len(data) < 12 and SIGNATURE.startswith(data):
        return 12 - len(data)
    if not (_VERSION_1.startswith(data) or data.startswith(_VERSION_1)):
        raise BadHeader("no PROXY header")
    if data.endswith(b"\r\n"):
        return 0
    if len(data) >= LONGEST_1 or b"\n" in data:
        raise BadHeader("a line that does not end as it must")
    if len(data) < 12:
        return 12 - len(data)  # the shortest line has 15
    return 1 if data.endswith(b"\r") else 2


def source(data: bytes) -> Source:
    """Of a header of which `need` says 0. Raises BadHeader."""
    return _version_2(data) if data.startswith(SIGNATURE) else _version_1(data)


def _version_1(data: bytes) -> Source:
    try:
        parts = data[:-2].decode("ascii").split(" ")
    except UnicodeDecodeError as error:
        raise BadHeader("octets outside ASCII") from error
    if parts[1] == "UNKNOWN":
        return Source(None)
    if len(parts) != 6 or parts[1] not in ("TCP4", "TCP6") or not all(_PORT.fullmatch(port) and int(port) < 65536 for port in parts[4:]):
        raise BadHeader("not PROXY, protocol, two addresses and two ports")
    version = ipaddress.IPv4Address if parts[1] == "TCP4" else ipaddress.IPv6Address
    try:
        client, _ = version(parts[2]), version(parts[3])
    except ValueError as error:
        raise BadHeader("an address that is none") from error
    return Source(_text(client))


def _version_2(data: bytes) -> Source:
    command, family = data[12], data[13]
    if command not in (0x20, 0x21):
        raise BadHeader("a version or a command that does not exist")
    if command == 0x20:
        return Source(None)  # what follows is to be ignored
    size = _ADDRESSES.get(family)
    if size is None or len(data) < 16 + size:
        raise BadHeader("addresses of another kind or length")
    _check_tlvs(data, 16 + size)
    match family:
        case 0x11:
            return Source(_text(ipaddress.IPv4Address(data[16:20])))
        case 0x21:
            return Source(_text(ipaddress.IPv6Address(data[16:32])))
    return Source(None)


def _check_tlvs(data: bytes, start: int) -> None:
    """Every TLV must lie inside of the header, and a checksum must be right."""
    checked = False
    while start < len(data):
        if len(data) - start < 3:
            raise BadHeader("half a TLV")
        kind, length = struct.unpack_from(">BH", data, start)
        value = start + 3
        start = value + length
        if start > len(data):
            raise BadHeader("a TLV that is longer than the header")
        if kind == _CRC32C:
            zeroed = data[:value] + bytes(4) + data[start:]
            if checked or length != 4 or crc32c(zeroed) != int.from_bytes(data[value:start], "big"):
                raise BadHeader("a wrong checksum")
            checked = True


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's (RFC 3309, appendix B). A library in C would pay off for more than the few hundred octets of a header."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF
