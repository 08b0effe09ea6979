"""Every reply that ingress can give: its class equals its enhanced code (RFC 2034 section 4), and nobody's secret is in it."""

import ast
import itertools
import re
from collections.abc import Iterator

import pytest

from postroom_core.reply import Reply
from postroom_ingress.dialogue import Dialogue, Kind, Offer

from architecture.tree import ROOT

SOURCES = sorted((ROOT / "services" / "ingress" / "src").rglob("*.py"))
TABLE = ROOT / "docs" / "refusals.md"
WITHOUT = {220, 250, 334, 354}  # greeting, EHLO and HELO, and what asks for more
_ROW = re.compile(r"\| (\d{3}) (\d\.\d\.\d{1,2}) \| (.+?) \| .+ \|")


def texts(node: ast.expr) -> list[str]:
    """What an expression can be; … stands for what is only known when it is said."""
    match node:
        case ast.Constant(value=value):
            return [str(value)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*texts(body), *texts(orelse)]
        case ast.JoinedStr(values=values):
            return ["".join(str(value.value) if isinstance(value, ast.Constant) else "…" for value in values)]
    return ["…"]


def replies() -> Iterator[tuple[str, int, str, str]]:
    """Where, code, enhanced code and text of every reply in the code of ingress; those of the signer and the spool have theirs from there."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reply" and isinstance(node.args[0], ast.Constant):
                for enhanced, text in itertools.product(texts(node.args[1]), texts(node.args[2])):
                    yield f"{path.name}:{node.lineno}", int(str(node.args[0].value)), enhanced, text


def test_every_reply_has_an_enhanced_code_of_its_own_class() -> None:
    found = list(replies())
    assert len(found) > 60
    wrong = [
        (where, code, enhanced)
        for where, code, enhanced, _ in found
        if not (re.fullmatch(rf"{code // 100}\.\d\.\d{{1,2}}", enhanced) or (not enhanced and code in WITHOUT))
    ]
    assert wrong == []


def test_the_table_of_refusals_is_the_code() -> None:
    """docs/refusals.md names every refusal, and none that is never said."""
    said = {(code, enhanced, text) for _, code, enhanced, text in replies() if code >= 400}
    written = {(int(code), enhanced, text) for code, enhanced, text in _ROW.findall(TABLE.read_text())}
    assert sorted(said - written) == []
    assert sorted(written - said) == []


@pytest.mark.parametrize("line", [b"EXPN x", b"ETRN x", b"ATRN", b"TURN", b"HELP", b"", b"\xff", b"GET / HTTP/1.1"])
def test_commands_that_are_not_there_are_said_so(line: bytes) -> None:
    dialogue = Dialogue(Offer(Kind.SUBMISSION, "mta.d.example", 1000, 10, 10), [], tls_offered=True)
    action = dialogue.command(line, 0)
    reply = getattr(action, "reply", None)
    assert isinstance(reply, Reply)
    assert reply.code == 500


def test_vrfy_neither_confirms_nor_denies() -> None:
    dialogue = Dialogue(Offer(Kind.SUBMISSION, "mta.d.example", 1000, 10, 10), [], tls_offered=True)
    reply = getattr(dialogue.command("VRFY <ü@d.example> SMTPUTF8".encode(), 0), "reply", None)
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (252, "2.5.0")
