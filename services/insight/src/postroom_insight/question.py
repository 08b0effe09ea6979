"""What the evaluators ask of DNS, as values. Pure.

An evaluator is a generator: it yields a Question, is sent the Answer, and returns its finding. So SPF and DMARC are decided without a socket, and
tests and the real DNS (`lookups`) drive the same code.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Status(Enum):
    """What came of a question. FAILED: no answer now (time-out, SERVFAIL); another moment may say otherwise."""

    FOUND = "found"
    EMPTY = "empty"  # the name exists, without records of this type
    ABSENT = "absent"  # NXDOMAIN, or no name that DNS could hold
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Question:
    """`type` is A, AAAA, MX, NS, PTR or TXT; `name` has no final dot."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`values` in text form: TXT with its strings joined, one character per octet; MX as "preference host"; names without a final dot."""

    status: Status
    values: tuple[str, ...] = ()
    reason: str = ""

    @property
    def void(self) -> bool:
        """RFC 7208 section 4.6.4: an answer without records."""
        return self.status in (Status.EMPTY, Status.ABSENT)


Asking = Generator[Question, Answer, T]
