"""RFC 8058 and RFC 9477 on the header of a message file."""

import pytest

from postroom_insight.finding import Finding, Grade
from postroom_insight.unsubscribe import MOST_HEADER, findings

BASE = "From: News <news@example.com>\nTo: b@x.example\nSubject: hi\nDate: Tue, 24 Nov 2026 10:00:00 +0000\nMessage-ID: <1@example.com>\n"
READY = "List-Unsubscribe: <mailto:u@example.com>, <https://example.com/u?x=1>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"


def grades(header: str) -> dict[str, Grade]:
    return {finding.subject: finding.grade for finding in found(header)}


def found(header: str) -> list[Finding]:
    return findings((header + "\nbody\n").encode(), "example.com")


def test_a_ready_message_passes_with_either_line_end() -> None:
    assert set(grades(BASE + READY).values()) == {Grade.PASS}
    assert {f.grade for f in findings((BASE + READY + "\nbody\n").replace("\n", "\r\n").encode(), "example.com")} == {Grade.PASS}


@pytest.mark.parametrize(
    ("header", "subject", "grade"),
    [
        (BASE, "List-Unsubscribe", Grade.ADVICE),
        (BASE + "List-Unsubscribe: <mailto:u@example.com>\n", "List-Unsubscribe", Grade.FAIL),
        (BASE + READY.replace("https:", "http:"), "List-Unsubscribe", Grade.FAIL),
        (BASE + READY.replace("<mailto:u@example.com>", "<https://b.example/>"), "List-Unsubscribe", Grade.FAIL),
        (BASE + READY + READY, "List-Unsubscribe", Grade.FAIL),
        (BASE + READY.split("\n")[0] + "\n", "List-Unsubscribe-Post", Grade.FAIL),
        (BASE + READY.replace("One-Click", "Two-Click"), "List-Unsubscribe-Post", Grade.FAIL),
        (BASE + READY + "DKIM-Signature: v=1; a=rsa-sha256; h=from:subject; b=x\n", "DKIM-Signature", Grade.FAIL),
        (BASE + READY + "DKIM-Signature: v=1; h=from:List-Unsubscribe:List-Unsubscribe-Post; b=x\n", "DKIM-Signature", Grade.PASS),
        (BASE + "CFBL-Address: fbl@example.com; report=arf\n", "CFBL-Address", Grade.PASS),
        (BASE + "CFBL-Address: fbl@elsewhere.example; report=arf\n", "CFBL-Address", Grade.FAIL),
        (BASE.replace("news@example.com", "news@other.example"), "From", Grade.FAIL),
        (BASE.replace("news@example.com", "news@mail.example.com"), "From", Grade.PASS),
        (BASE + "From: other@example.com\n", "header", Grade.FAIL),
        (BASE + "".join(f"X-{n}: {'x' * 900}\n" for n in range(80)), "header", Grade.ADVICE),
        (BASE + "".join(f"X-{n}: {'x' * 900}\n" for n in range(MOST_HEADER // 900 + 1)), "header", Grade.FAIL),
    ],
)
def test_each_fault_is_found(header: str, subject: str, grade: Grade) -> None:
    assert grades(header)[subject] is grade
