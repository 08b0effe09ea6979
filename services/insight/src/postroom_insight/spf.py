"""SPF (RFC 7208): may this address send as this domain? Pure; asks by yielding (see `question`).

check_host() of section 4: the record is selected, read whole, then its terms are tried from left to right. Whatever a term asks is counted in one
`Budget` over all includes and redirects. The macros are in `spf_macro`, the syntax in `spf_record`. Held to the public RFC 7208 test suite.
"""

import ipaddress
from dataclasses import dataclass, field

from postroom_insight.question import Answer, Asking, Question, Status
from postroom_insight.spf_macro import BadName, Context, checked_name, expand
from postroom_insight.spf_record import Mechanism, PermError, Record, parse

# RFC 7208 section 4.6.4. Two void look-ups is its recommendation, and what the large receivers use.
MOST_TERMS, MOST_VOIDS, MOST_NAMES = 10, 2, 10
_RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TempError(Exception):
    """DNS did not answer: section 2.6.6."""


@dataclass(slots=True)
class Budget:
    """What was used so far, over the whole evaluation; `trail` names the terms that asked, in order."""

    terms: int = 0
    voids: int = 0
    trail: list[str] = field(default_factory=list)

    def spend(self, term: str) -> None:
        self.terms += 1
        self.trail.append(term)
        if self.terms > MOST_TERMS:
            raise PermError(f"more than {MOST_TERMS} DNS look-ups are needed, at {term}")

    def note(self, answer: Answer, name: str) -> None:
        if answer.void:
            self.voids += 1
            if self.voids > MOST_VOIDS:
                raise PermError(f"more than {MOST_VOIDS} look-ups find nothing, at {name}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`result` of section 2.6 with the term that decided; `reason` tells what permerror and temperror mean here; `explanation` is its own words."""

    result: str
    term: str = ""
    reason: str = ""
    record: str = ""
    terms: int = 0
    voids: int = 0
    trail: tuple[str, ...] = ()
    explanation: str = ""


@dataclass(slots=True)
class _Evaluation:
    address: Address
    sender: str
    helo: str
    budget: Budget

    def context(self, domain: str, validated: str = "unknown") -> Context:
        return Context(self.address, self.sender, self.helo, domain, validated)


def check(address: str, reverse_path: str, helo: str) -> Asking[Verdict]:
    """Of a MAIL command: `reverse_path` "" is checked as postmaster at the EHLO name (section 2.4)."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    local, _, domain = (reverse_path or f"postmaster@{helo}").rpartition("@")
    evaluation = _Evaluation(parsed, f"{local or 'postmaster'}@{domain}", helo, Budget())
    budget = evaluation.budget
    record = ""
    try:
        record, result, term, explanation = yield from _top(evaluation, domain)
    except PermError as error:
        return Verdict("permerror", reason=str(error), record=error.record, terms=budget.terms, voids=budget.voids, trail=tuple(budget.trail))
    except TempError as error:
        return Verdict("temperror", reason=str(error), terms=budget.terms, voids=budget.voids, trail=tuple(budget.trail))
    return Verdict(result, term, "", record, budget.terms, budget.voids, tuple(budget.trail), explanation)


def _top(evaluation: _Evaluation, domain: str) -> Asking[tuple[str, str, str, str]]:
    """(record, result, deciding term, explanation)."""
    try:
        checked_name(domain)
    except BadName:
        return "", "none", "", ""
    text, result, term, source = yield from _check_host(evaluation, domain)
    explanation = ""
    if result == "fail" and source is not None:
        explanation = yield from _explain(evaluation, *source)
    return text, result, term, explanation


_Source = tuple[str, Record]


def _check_host(evaluation: _Evaluation, domain: str) -> Asking[tuple[str, str, str, _Source | None]]:
    """(record's text, result, deciding term, domain and record that decided). Raises PermError, TempError."""
    text = yield from _select(domain)
    if text is None:
        return "", "none", "", None
    try:
        record = parse(text)
        for mechanism in record.mechanisms:
            if (yield from _matches(evaluation, domain, mechanism)):
                return text, _RESULTS[mechanism.qualifier], mechanism.text, (domain, record)
        if record.redirect is not None:
            evaluation.budget.spend(f"redirect={record.redirect}")
            target = yield from _expanded(evaluation, domain, record.redirect)
            _, result, term, source = yield from _check_host(evaluation, target)
            if result == "none":
                raise PermError(f"redirect={target} has no SPF record")
            return text, result, term, source
    except BadName as error:
        raise PermError(str(error)) from error
    except PermError as error:
        error.record = error.record or text
        raise
    return text, "neutral", "", (domain, record)


def _select(domain: str) -> Asking[str | None]:
    """The one record of a domain (section 4.5); None when there is none."""
    answer = yield from _ask(domain, "TXT")
    found = [value for value in answer.values if value.lower() == "v=spf1" or value.lower().startswith("v=spf1 ")]
    if len(found) > 1:
        raise PermError(f"{domain} has {len(found)} SPF records; one is allowed")
    return found[0] if found else None


def _ask(name: str, kind: str) -> Asking[Answer]:
    answer = yield Question(name, kind)
    if answer.status is Status.FAILED:
        raise TempError(answer.reason or f"DNS did not answer for {name} {kind}")
    return answer


def _matches(evaluation: _Evaluation, domain: str, mechanism: Mechanism) -> Asking[bool]:
    match mechanism.name:
        case "all":
            return True
        case "ip4" | "ip6":
            return mechanism.network is not None and evaluation.address in mechanism.network
    evaluation.budget.spend(mechanism.text)
    if mechanism.name == "ptr":
        name = (yield from _expanded(evaluation, domain, mechanism.domain)) if mechanism.domain else domain
        names = yield from _validated(evaluation)
        return any(_within(found, name) for found in names)
    try:
        name = (yield from _expanded(evaluation, domain, mechanism.domain)) if mechanism.domain else domain
    except BadName:
        if mechanism.name == "include":
            raise
        return False  # a name that DNS cannot hold has no records (section 4.3)
    match mechanism.name:
        case "include":
            return (yield from _include(evaluation, name))
        case "exists":
            answer = yield from _ask(name, "A")
            evaluation.budget.note(answer, name)
            return bool(answer.values)
        case "mx":
            return (yield from _mx(evaluation, name, mechanism))
    return (yield from _a(evaluation, name, mechanism, count=True))


def _include(evaluation: _Evaluation, name: str) -> Asking[bool]:
    _, result, _, _ = yield from _check_host(evaluation, name)
    if result == "none":
        raise PermError(f"include:{name} has no SPF record")
    return result == "pass"


def _a(evaluation: _Evaluation, name: str, mechanism: Mechanism, *, count: bool) -> Asking[bool]:
    """`count`: an empty answer counts as void."""
    answer = yield from _ask(name, "A" if evaluation.address.version == 4 else "AAAA")
    if count:
        evaluation.budget.note(answer, name)
    prefix = mechanism.prefix4 if evaluation.address.version == 4 else mechanism.prefix6
    return any(evaluation.address in ipaddress.ip_network((value, prefix), strict=False) for value in answer.values)


def _mx(evaluation: _Evaluation, name: str, mechanism: Mechanism) -> Asking[bool]:
    answer = yield from _ask(name, "MX")
    evaluation.budget.note(answer, name)
    hosts = [value.partition(" ")[2] for value in answer.values]
    if len(hosts) > MOST_NAMES:
        raise PermError(f"{name} has more than {MOST_NAMES} MX hosts")
    for host in hosts:
        if host and (yield from _a(evaluation, host, mechanism, count=False)):
            return True
    return False


def _validated(evaluation: _Evaluation) -> Asking[list[str]]:
    """Names of the address whose own addresses include it (section 5.5); the first ten alone count."""
    answer = yield Question(evaluation.address.reverse_pointer, "PTR")
    if answer.status is not Status.FAILED:
        evaluation.budget.note(answer, evaluation.address.reverse_pointer)
    names = []
    for name in answer.values[:MOST_NAMES]:
        forward = yield Question(name, "A" if evaluation.address.version == 4 else "AAAA")
        if any(ipaddress.ip_address(value) == evaluation.address for value in forward.values):
            names.append(name.lower())
    return names


def _within(name: str, domain: str) -> bool:
    wanted = domain.lower().rstrip(".")
    return name == wanted or name.endswith(f".{wanted}")


def _expanded(evaluation: _Evaluation, domain: str, spec: str) -> Asking[str]:
    """A domain-spec as a name. Raises BadName for what DNS cannot hold."""
    validated = yield from _validated_for(evaluation, domain, spec)
    return checked_name(expand(spec, evaluation.context(domain, validated)))


def _validated_for(evaluation: _Evaluation, domain: str, text: str) -> Asking[str]:
    """The value of the macro p (section 7.3): the domain itself, else a name below it, else any validated name; asked only if `text` uses it."""
    if "%{p" not in text.lower():
        return "unknown"
    names = yield from _validated(evaluation)
    near = [name for name in names if name == domain.lower()] or [name for name in names if _within(name, domain)]
    return (near or names or ["unknown"])[0]


def _explain(evaluation: _Evaluation, domain: str, record: Record) -> Asking[str]:
    """The domain's explanation (section 6.2); "" whenever anything is wrong with it."""
    if record.explanation is None:
        return ""
    try:
        name = yield from _expanded(evaluation, domain, record.explanation)
        answer = yield Question(name, "TXT")
        if len(answer.values) != 1 or not answer.values[0].isascii():
            return ""
        validated = yield from _validated_for(evaluation, domain, answer.values[0])
        return expand(answer.values[0], evaluation.context(domain, validated), explanation=True)
    except (PermError, BadName):
        return ""
