"""The syntax of an SPF record (RFC 7208 section 12): text in, terms out; any fault anywhere is a permerror (section 4.6). Pure."""

import ipaddress
import re
from dataclasses import dataclass

_MACRO_EXPAND = r"%\{[slodiphcrtv][0-9]*r?[-.+,/_=]*\}|%%|%_|%-"
_MACRO_STRING = re.compile(rf"(?:{_MACRO_EXPAND}|[!-$&-~])*", re.IGNORECASE)
_TOP_LABEL = r"(?:[a-z0-9]*[a-z][a-z0-9]*|[a-z0-9]+-[a-z0-9-]*[a-z0-9])"
_DOMAIN_SPEC = re.compile(rf"(?:{_MACRO_EXPAND}|[!-$&-~])*(?:\.{_TOP_LABEL}\.?|%\{{[slodiphv][0-9]*r?[-.+,/_=]*\}})", re.IGNORECASE)
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE | re.DOTALL)
_MECHANISM = re.compile(r"([-+?~]?)([a-z][a-z0-9]*)(.*)", re.IGNORECASE | re.DOTALL)
_CIDR = re.compile(r"(.*?)(?:/(0|[1-9][0-9]{0,2}))?(?://(0|[1-9][0-9]{0,2}))?", re.DOTALL)
_WITH_DOMAIN = frozenset({"include", "exists"})


class PermError(Exception):
    """The record cannot be read, or asks for too much; the text says where. `record` is the record at fault, when it was read."""

    record = ""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """`domain` is a domain-spec, "" for the current domain."""

    qualifier: str
    name: str
    text: str
    domain: str = ""
    prefix4: int = 32
    prefix6: int = 128
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """`redirect` counts only without `all` (section 6.1)."""

    mechanisms: tuple[Mechanism, ...]
    redirect: str | None = None
    explanation: str | None = None


def parse(text: str) -> Record:
    """Raises PermError."""
    if not text.isascii():
        raise PermError("the record has octets outside ASCII")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for term in text.split(" ")[1:]:
        if not term:
            continue
        if modifier := _MODIFIER.fullmatch(term):
            _modifier(modifiers, modifier[1].lower(), modifier[2], term)
        else:
            mechanisms.append(_mechanism(term))
    ended = any(mechanism.name == "all" for mechanism in mechanisms)
    return Record(tuple(mechanisms), None if ended else modifiers.get("redirect"), modifiers.get("exp"))


def _modifier(found: dict[str, str], name: str, value: str, term: str) -> None:
    if name not in ("redirect", "exp"):
        if not _MACRO_STRING.fullmatch(value):
            raise PermError(f"{term!r} cannot be read")
        return
    if name in found:
        raise PermError(f"{name}= is there twice")
    found[name] = domain_spec(value, term)


def domain_spec(value: str, term: str) -> str:
    """Raises PermError for what is none; the letters c, r and t belong to explanations (section 7.2)."""
    if not _DOMAIN_SPEC.fullmatch(value) or re.search(r"%\{[crt]", value, re.IGNORECASE) or re.search(r"%\{[a-z]0+[r}\W_]", value, re.IGNORECASE):
        raise PermError(f"{term!r} has no domain that can be read")
    return value


def _mechanism(term: str) -> Mechanism:
    parts = _MECHANISM.fullmatch(term)
    if parts is None:
        raise PermError(f"{term!r} cannot be read")
    qualifier, name, rest = parts[1] or "+", parts[2].lower(), parts[3]
    match name:
        case "all":
            if rest:
                raise PermError(f"{term!r} cannot be read")
            return Mechanism(qualifier, name, term)
        case "ip4" | "ip6":
            return Mechanism(qualifier, name, term, network=_network(name, rest, term))
        case "include" | "exists" | "ptr":
            if not rest and name == "ptr":
                return Mechanism(qualifier, name, term)
            if not rest.startswith(":"):
                raise PermError(f"{term!r} has no domain")
            return Mechanism(qualifier, name, term, domain_spec(rest[1:], term))
        case "a" | "mx":
            return _with_prefixes(qualifier, name, rest, term)
    raise PermError(f"{term!r} is no mechanism of SPF")


def _with_prefixes(qualifier: str, name: str, rest: str, term: str) -> Mechanism:
    parts = _CIDR.fullmatch(rest)
    assert parts is not None  # every part is optional
    domain, prefix4, prefix6 = parts[1], int(parts[2] or 32), int(parts[3] or 128)
    if prefix4 > 32 or prefix6 > 128 or (domain and not domain.startswith(":")):
        raise PermError(f"{term!r} cannot be read")
    return Mechanism(qualifier, name, term, domain_spec(domain[1:], term) if domain else "", prefix4, prefix6)


def _network(name: str, rest: str, term: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    kind = ipaddress.IPv4Network if name == "ip4" else ipaddress.IPv6Network
    parts = re.fullmatch(r":([0-9a-f.:]+)(?:/(0|[1-9][0-9]{0,2}))?", rest, re.IGNORECASE)
    if parts is None:
        raise PermError(f"{term!r} has no address")
    try:
        return kind(f"{parts[1]}/{parts[2]}" if parts[2] else parts[1], strict=False)
    except ValueError:
        raise PermError(f"{term!r} has no address that can be read") from None
