"""What a check found: what was seen, what is wanted, and the exact record to publish. Pure values."""

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """FAIL: mail is refused or distrusted for it. ADVICE: mail arrives, and this makes it better. UNKNOWN: could not be seen now."""

    PASS = "pass"
    ADVICE = "advice"
    FAIL = "fail"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Publish:
    """A record to publish; the value is unsplit."""

    name: str
    type: str
    value: str

    def __str__(self) -> str:
        return f'{self.name}. IN {self.type} "{self.value}"' if self.type == "TXT" else f"{self.name}. IN {self.type} {self.value}"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is the kind (spf, dkim, dmarc, …), `subject` the name or address that it is about; `rule` is where the demand stands."""

    check: str
    subject: str
    grade: Grade
    seen: str
    wanted: str = ""
    publish: Publish | None = None
    rule: str = ""

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        record = None if self.publish is None else {"name": self.publish.name, "type": self.publish.type, "value": self.publish.value}
        return {
            "check": self.check,
            "subject": self.subject,
            "grade": self.grade.value,
            "seen": self.seen,
            "wanted": self.wanted,
            "publish": record,
            "rule": self.rule,
        }
