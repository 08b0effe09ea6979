"""DMARC (RFC 9989): the policy that applies to an author domain, by the DNS tree walk, and alignment. Pure; asks by yielding (see `question`).

The walk of section 4.10 asks at most eight names: the domain itself, then from seven labels on one label less at a time. No public suffix list.
"""

from dataclasses import dataclass, field

from postroom_insight import tags
from postroom_insight.question import Answer, Asking, Question, Status

MOST_QUERIES = 8
_POLICIES = ("none", "quarantine", "reject")
# Tags of RFC 7489 that RFC 9989 took away: receivers ignore them.
REMOVED = ("pct", "rf", "ri")


@dataclass(frozen=True, slots=True)
class Record:
    """One valid record; `tags` as published."""

    domain: str
    text: str
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def psd(self) -> str:
        """y, n or u (section 4.7)."""
        return self.tags.get("psd", "u").lower()


@dataclass(frozen=True, slots=True)
class Walk:
    """Records found from the domain upwards; `failed` names what DNS did not answer; `broken` what is published and is no valid record."""

    domain: str
    records: tuple[Record, ...]
    queries: int
    failed: str = ""
    broken: tuple[str, ...] = ()

    @property
    def organizational(self) -> str:
        """The organizational domain (section 4.10.2); the domain itself when nothing says otherwise."""
        for record in self.records:
            if record.psd == "n":
                return record.domain
            if record.psd == "y" and record.domain != self.domain:
                labels = self.domain.split(".")
                return ".".join(labels[-(record.domain.count(".") + 2) :])
        return self.records[-1].domain if self.records else self.domain

    @property
    def policy_record(self) -> Record | None:
        """The domain's own record, else the organizational domain's, else that of a public suffix (section 4.10.1)."""
        wanted = (self.domain, self.organizational)
        for name in wanted:
            for record in self.records:
                if record.domain == name:
                    return record
        return self.records[-1] if self.records else None

    @property
    def policy(self) -> str:
        """What applies to mail from the domain, which exists: p of its own record, else sp, else p of the record above."""
        record = self.policy_record
        if record is None:
            return ""
        policy = record.tags.get("p", "none")
        return (policy if record.domain == self.domain else record.tags.get("sp", policy)).lower()


def walk(domain: str) -> Asking[Walk]:
    """The tree walk from `domain`."""
    found: list[Record] = []
    broken: list[str] = []
    queries, failed = 0, ""
    for name in steps(domain):
        answer = yield Question(f"_dmarc.{name}", "TXT")
        queries += 1
        if answer.status is Status.FAILED:
            failed = failed or f"_dmarc.{name}"
            continue
        record, fault = select(name, answer)
        broken += [fault] if fault else []
        if record is not None:
            found.append(record)
            if record.psd in ("y", "n"):
                break
    return Walk(domain, tuple(found), queries, failed, tuple(broken))


def steps(domain: str) -> list[str]:
    """The names in order; eight at most."""
    labels = domain.lower().rstrip(".").split(".")
    above = labels[1:] if len(labels) < MOST_QUERIES else labels[-(MOST_QUERIES - 1) :]
    return [".".join(labels), *(".".join(above[at:]) for at in range(len(above)))]


def select(domain: str, answer: Answer) -> tuple[Record | None, str]:
    """(the record, what is wrong). Records that are not DMARC's are no fault; more than one leaves none (section 4.10)."""
    texts = [value for value in answer.values if value.replace(" ", "").replace("\t", "").startswith("v=DMARC1")]
    if len(texts) > 1:
        return None, f"{len(texts)} DMARC records at _dmarc.{domain}; with more than one none counts"
    if not texts:
        return None, ""
    found = tags.parse(texts[0])
    if found is None or next(iter(found), "") != "v" or found["v"] != "DMARC1":
        return None, f"the record at _dmarc.{domain} cannot be read: {texts[0]!r}"
    policy = found.get("p", "none").lower()
    if policy not in _POLICIES or found.get("sp", policy).lower() not in _POLICIES:
        return None, f"the record at _dmarc.{domain} has no policy of none, quarantine or reject: {texts[0]!r}"
    return Record(domain, texts[0], found), ""


def aligned(author: Walk, other: Walk, *, strict: bool) -> bool:
    """Section 4.10.2: the same domain, or, relaxed, the same organizational domain."""
    return author.domain == other.domain or (not strict and author.organizational == other.organizational)
