"""SPF macros (RFC 7208 section 7) and the names that they make. Pure."""

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass

from postroom_insight.spf_record import PermError

_EXPAND = re.compile(r"%(?:\{([a-z])([0-9]*)(r?)([-.+,/_=]*)\}|([%_-])|)", re.IGNORECASE)
MOST_NAME = 253


class BadName(Exception):
    """No name that DNS could hold."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the letters stand for; `validated` is p."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    sender: str
    helo: str
    domain: str
    validated: str = "unknown"


def expand(text: str, context: Context, *, explanation: bool = False) -> str:
    """The text with its macros expanded. Raises PermError for what is no macro; c, r and t are known in explanations only."""
    return _EXPAND.sub(lambda found: _one(found, context, explanation), text)


def _one(found: re.Match[str], context: Context, explanation: bool) -> str:
    letter, digits, reverse, delimiters, literal = found.groups()
    if literal:
        return {"%": "%", "_": " ", "-": "%20"}[literal]
    if letter is None or (digits and int(digits) == 0):
        raise PermError(f"{found.string!r} has a macro that cannot be read")
    value = _values(context, explanation).get(letter.lower())
    if value is None:
        raise PermError(f"{found[0]} is no macro of SPF here")
    parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
    if reverse:
        parts.reverse()
    joined = ".".join(parts[-int(digits) :] if digits else parts)
    return urllib.parse.quote(joined, safe="-._~") if letter.isupper() else joined


def _values(context: Context, explanation: bool) -> dict[str, str]:
    address = context.address
    local, _, domain = context.sender.rpartition("@")
    dotted = str(address) if address.version == 4 else ".".join(f"{int(address):032X}")
    values = {
        "s": context.sender,
        "l": local,
        "o": domain,
        "d": context.domain,
        "i": dotted,
        "p": context.validated,
        "v": "in-addr" if address.version == 4 else "ip6",
        "h": context.helo,
    }
    # `r` is the receiver's name and `t` the time: a check before sending has neither, and RFC 7208 section 7.3 allows "unknown".
    return values | ({"c": str(address), "r": "unknown", "t": "0"} if explanation else {})


def checked_name(name: str) -> str:
    """The name as it can be asked: shortened from the left to 253 octets (section 7.3). Raises BadName."""
    name = name.removesuffix(".")
    while len(name) > MOST_NAME and "." in name:
        name = name.partition(".")[2]
    labels = name.split(".")
    if len(labels) < 2 or name.startswith("[") or any(not 0 < len(label) <= 63 for label in labels):
        raise BadName(f"{name!r} is no domain name")
    return name
