"""Which transport security a host must give before it gets a message, and what to call it. Pure.

Three say something: the domain by DANE (TLSA records, DNSSEC) or MTA-STS; the pool's rule for the domain; the message by REQUIRETLS or
`TLS-Required: No` (RFC 8689). The strictest holds; `TLS-Required: No` sets aside what the domain publishes, not what the pool asks. DANE beats
MTA-STS where a host has usable records (RFC 8461 section 2). With nothing said TLS is opportunistic: taken when offered, unverified, and in clear
when it fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from postroom_core.documents import TlsPolicy
from postroom_delivery.dane import Tlsa, usable
from postroom_delivery.spool.model import MailOptions
from postroom_delivery.sts import Mode, Policy


class Demand(Enum):
    """What the message says."""

    NORMAL = "normal"
    REQUIRE = "REQUIRETLS"
    RELAX = "TLS-Required: No"


class Level(IntEnum):
    """What a host must give, from nothing to most."""

    OPPORTUNISTIC = 0
    ENCRYPT = 1
    VERIFY = 2
    DANE = 3


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one host must give. `source` names who asks, for people; `names` are what a DANE-TA certificate may be for, the first is the SNI.

    `testing`: MTA-STS in testing mode: the certificate is verified, a failure is noted, and the message goes all the same. `requiretls`: the host
    must offer REQUIRETLS.
    """

    level: Level = Level.OPPORTUNISTIC
    source: str = ""
    tlsa: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()
    testing: bool = False
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class Unfit:
    """A host that must not get the message. `final`: no later attempt can change it (RFC 8689); a policy's failure never is.

    `result` is its type in a report about TLS (RFC 8460 section 4.3), "" when the domain's policy is not to blame.
    """

    text: str
    final: bool = False
    result: str = ""


@dataclass(frozen=True, slots=True)
class Domain:
    """What is known of the next hop's domain. `secure`: the MX answer, or its absence, is authentic; `from_mx`: its hosts' names are MX records.

    `policy` is its MTA-STS policy, `sts_trouble` why there is none though there is a record (RFC 8460 section 4.3); `rule` what the pool asks.
    """

    name: str
    secure: bool = False
    from_mx: bool = True
    policy: Policy | None = None
    rule: TlsPolicy = "Opportunistic"
    sts_trouble: str = ""


_RULES = {"Opportunistic": Level.OPPORTUNISTIC, "Encrypt": Level.ENCRYPT, "Verify": Level.VERIFY, "Dane": Level.DANE}


def demand_of(options: MailOptions) -> Demand:
    """REQUIRETLS wins over the header field (RFC 8689 section 3)."""
    return Demand.REQUIRE if options.require_tls else Demand.RELAX if options.tls_optional else Demand.NORMAL


def serves(opened_for: Demand, demand: Demand) -> bool:
    """Whether a session that was opened for one demand may carry a message with another."""
    return demand is Demand.RELAX or opened_for is demand or (opened_for is Demand.REQUIRE and demand is Demand.NORMAL)


def require(domain: Domain, host: str, tlsa: Sequence[Tlsa], base: str, demand: Demand) -> Requirement | Unfit:
    """What `host` must give. `tlsa` are its authentic records, found at the name `base`."""
    required = Requirement() if demand is Demand.RELAX else _published(domain, host, tlsa, base)
    if isinstance(required, Unfit):
        return required
    rule = _RULES[domain.rule]
    if rule is Level.DANE and required.level is not Level.DANE:
        return Unfit(f"{host} has no usable DANE record, which the pool's rule for {domain.name} demands", result="dane-required")
    if rule > required.level:
        required = Requirement(rule, "the pool's rule")
    return _for_requiretls(domain, host, required) if demand is Demand.REQUIRE else required


def _published(domain: Domain, host: str, tlsa: Sequence[Tlsa], base: str) -> Requirement | Unfit:
    good = usable(tlsa)
    if good:
        return Requirement(Level.DANE, "DANE", good, tuple(dict.fromkeys((base, host, domain.name))))
    mode = domain.policy.mode if domain.policy is not None else Mode.NONE
    named = domain.policy is not None and domain.policy.names(host)
    if mode is Mode.ENFORCE:
        text = f"{host} is not in the MTA-STS policy of {domain.name} (enforce)"
        return Requirement(Level.VERIFY, "MTA-STS enforce") if named else Unfit(text, result="validation-failure")
    if tlsa:
        return Requirement(Level.ENCRYPT, "DANE, no usable record")
    if mode is Mode.TESTING:
        return Requirement(source="MTA-STS testing" if named else "MTA-STS testing, host not in the policy", testing=named)
    return Requirement()


def _for_requiretls(domain: Domain, host: str, required: Requirement) -> Requirement | Unfit:
    """RFC 8689 section 4.2.1: the host's name must be authentic, and then its certificate must be its own."""
    if required.level is Level.DANE:
        return Requirement(required.level, "DANE for REQUIRETLS", required.tlsa, required.names, requiretls=True)
    if domain.policy is not None and domain.policy.mode is not Mode.NONE and domain.policy.names(host):
        return Requirement(Level.VERIFY, "MTA-STS for REQUIRETLS", requiretls=True)
    if domain.secure or not domain.from_mx:
        return Requirement(Level.VERIFY, "PKIX for REQUIRETLS", requiretls=True)
    return Unfit(f"REQUIRETLS: neither DNSSEC nor MTA-STS vouches for {host} as a host of {domain.name}", final=True)


def strict(required: Requirement) -> Requirement:
    """What MTA-STS in testing mode would demand if it were enforced."""
    return replace(required, level=Level.VERIFY, source="MTA-STS testing")


def told(tls: str, required: Requirement, note: str) -> str:
    """The security of a session in plain words; `tls` is its protocol and cipher, "" in clear, `note` what MTA-STS testing found."""
    if not tls:
        words = ""
    elif required.level >= Level.VERIFY:
        words = f"{tls}, certificate verified by {required.source}"
    elif required.source:
        words = f"{tls}, certificate not verified ({required.source})"
    else:
        words = f"{tls}, certificate not verified"
    return f"{words}{'; ' if words else 'in clear; '}{note}" if note else words
