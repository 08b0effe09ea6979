"""Every reply that ingress can give: its class equals its enhanced code (RFC 2034 section 4), and nobody's secret is in it."""

import ast
import re
from collections.abc import Iterator

import pytest

from postroom_core.reply import Reply
from postroom_ingress.dialogue import Dialogue, Kind, Offer

from architecture.tree import ROOT

SOURCES = sorted((ROOT / "services" / "ingress" / "src").rglob("*.py"))
WITHOUT = {220, 250, 334, 354}  # greeting, EHLO and HELO, and what asks for more


def replies() -> Iterator[tuple[str, int, str]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reply":
                code, enhanced = node.args[:2]
                if isinstance(code, ast.Constant) and isinstance(enhanced, ast.Constant | ast.IfExp):
                    parts = [enhanced] if isinstance(enhanced, ast.Constant) else [enhanced.body, enhanced.orelse]
                    for part in parts:
                        assert isinstance(part, ast.Constant)
                        yield f"{path.name}:{node.lineno}", int(str(code.value)), str(part.value)


def test_every_reply_has_an_enhanced_code_of_its_own_class() -> None:
    found = list(replies())
    assert len(found) > 60
    wrong = [
        (where, code, enhanced)
        for where, code, enhanced in found
        if not (re.fullmatch(rf"{code // 100}\.\d\.\d{{1,2}}", enhanced) or (not enhanced and code in WITHOUT))
    ]
    assert wrong == []


@pytest.mark.parametrize("line", [b"EXPN x", b"ETRN x", b"ATRN", b"TURN", b"HELP", b"", b"\xff", b"GET / HTTP/1.1"])
def test_commands_that_are_not_there_are_said_so(line: bytes) -> None:
    dialogue = Dialogue(Offer(Kind.SUBMISSION, "mta.d.example", 1000, 10, 10), [], tls=True, tls_offered=True)
    action = dialogue.command(line, 0)
    reply = getattr(action, "reply", None)
    assert isinstance(reply, Reply)
    assert reply.code == 500


def test_vrfy_neither_confirms_nor_denies() -> None:
    dialogue = Dialogue(Offer(Kind.SUBMISSION, "mta.d.example", 1000, 10, 10), [], tls=True, tls_offered=True)
    reply = getattr(dialogue.command("VRFY <ü@d.example> SMTPUTF8".encode(), 0), "reply", None)
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (252, "2.5.0")
