"""Fuzzes the parsers that strangers reach, guided by coverage: needs atheris, which `make fuzz` brings along for itself.

    uv run --with atheris python scripts/fuzz_parsers.py TARGET [libFuzzer's options, for example -max_total_time=60]

A crash is printed with its input; it becomes a test in tests/unit/ingress.
"""

import contextlib
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["postroom_core", "postroom_ingress"]):
    from postroom_core.address import BadAddress, parse_mailbox
    from postroom_core.headers import MalformedHeader, check, from_address, parse
    from postroom_ingress import proxy
    from postroom_ingress.chunks import ChunkReader
    from postroom_ingress.data import DataReader
    from postroom_ingress.dialogue import Dialogue, Kind, Offer
    from postroom_ingress.mime import NestingMeter


def addresses(data: bytes) -> None:
    """Nothing but BadAddress, and what is accepted has no control character."""
    with contextlib.suppress(BadAddress):
        made = str(parse_mailbox(data.decode("utf-8", "replace"), utf8=True))
        assert not any(ord(character) < 32 for character in made), made


def headers(data: bytes) -> None:
    """Nothing but MalformedHeader, and fields are the octets of the block."""
    with contextlib.suppress(MalformedHeader):
        fields = parse(data)
        assert b"".join(field.raw for field in fields) == data
        check(fields)
        from_address(fields, utf8=True)


def contents(data: bytes) -> None:
    """DATA and BDAT agree on what may be sent on, whatever the division."""
    size = 1 + data[0] if data else 1
    reader, chunks, meter = DataReader(10_000), ChunkReader(10_000, binary=False), NestingMeter()
    meter.start(data[:80])
    for start in range(0, len(data), size):
        if reader.ended:
            break
        reader.feed(data[start : start + size])
        meter.feed(chunks.feed(data[start : start + size]))
    chunks.finish()
    for fault in (reader.fault, chunks.fault):
        assert fault is None or fault.kind == 5


def proxies(data: bytes) -> None:
    """Nothing but BadHeader, and never more octets than there may be."""
    with contextlib.suppress(proxy.BadHeader):
        read = b""
        while (missing := proxy.need(read)) and len(read) < len(data):
            assert missing <= proxy.LONGEST_2
            read += data[len(read) : len(read) + missing]
        if not proxy.need(read):
            proxy.source(read)


def sessions(data: bytes) -> None:
    """A dialogue never raises."""
    dialogue = Dialogue(Offer(Kind.RELAY, "mta.example", 1000, 10, 10), [], tls_offered=True)
    dialogue.tls_started(("PLAIN",))
    for line in data.split(b"\r\n"):
        dialogue.command(line, 1_800_000_000_000)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "addresses": addresses,
    "headers": headers,
    "contents": contents,
    "proxies": proxies,
    "sessions": sessions,
}


def main() -> None:
    """Exits with libFuzzer's status."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz_parsers.py {{{','.join(TARGETS)}}} [options of libFuzzer]")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
