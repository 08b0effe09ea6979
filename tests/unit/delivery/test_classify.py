"""What replies mean: every row of the built-in table against replies as providers send them, and a pool's own rules before them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_core.documents import ReplyRule
from postroom_core.reply import Reply
from postroom_core.replyrule import compile_pattern
from postroom_delivery.classify import Action, Class, built_in, classify, default_action, table_of

_SEEN = re.compile(r"(?P<who>[^:]+): (?P<code>\d{3}) (?:(?P<enhanced>\d\.\d+\.\d+) )?(?P<text>.+)")


def seen() -> list[Any]:
    """(row, reply) of everything under `seen`."""
    found = []
    for row in built_in():
        for line in row["seen"]:
            match = _SEEN.fullmatch(line)
            assert match, line
            reply = Reply(int(match["code"]), match["enhanced"] or "", match["text"])
            found.append(pytest.param(row, reply, id=f"{row['name']}: {match['who']} {match['code']} {match['text'][:30]}"))
    return found


@pytest.mark.parametrize(("row", "reply"), seen())
def test_a_reply_of_a_provider_is_judged_by_its_own_row(row: dict[str, Any], reply: Reply) -> None:
    """A row that an earlier one hides, or that does not fit its own example, fails here."""
    judgement = table_of().judge(reply, final=reply.kind == 5)
    assert (judgement.rule, judgement.classification.value) == (row["name"], row["class"])


def test_every_row_has_a_name_of_its_own_and_an_example() -> None:
    names = [row["name"] for row in built_in()]
    assert len(names) == len(set(names))
    assert [row["name"] for row in built_in() if not row["seen"]] == []


@pytest.mark.parametrize(
    ("reply", "classification", "action"),
    [
        (Reply(550, "5.1.1", "who?"), Class.UNKNOWN_USER, Action.SUPPRESS),
        (Reply(450, "4.1.1", "user unknown for now"), Class.OTHER, Action.RETRY),
        (Reply(451, "", "something new under the sun"), Class.OTHER, Action.RETRY),
        (Reply(550, "", "something new under the sun"), Class.OTHER, Action.BOUNCE),
        (Reply(452, "4.2.2", "over quota"), Class.MAILBOX_FULL, Action.RETRY_SLOWLY),
        (Reply(552, "5.2.2", "over quota"), Class.MAILBOX_FULL, Action.BOUNCE),
        (Reply(421, "4.7.0", "come back"), Class.THROTTLE, Action.REDUCE_RATE),
        (Reply(550, "5.7.26", "unauthenticated"), Class.AUTHENTICATION, Action.ALERT),
        (Reply(550, "5.5.0", "Requested action not taken: mailbox unavailable"), Class.UNKNOWN_USER, Action.BOUNCE),
    ],
)
def test_a_class_decides_the_action_where_its_row_names_none(reply: Reply, classification: Class, action: Action) -> None:
    judgement = table_of().judge(reply, final=reply.kind == 5)
    assert (judgement.classification, judgement.action) == (classification, action)


def test_the_lines_of_a_reply_are_one_text() -> None:
    assert classify(Reply(550, "5.7.1", "this sender is\nblocked\nusing a list")) is Class.BLOCKED


@given(st.integers(400, 499), st.text(max_size=200))
def test_no_built_in_row_ends_a_recipient_on_a_4xx(code: int, text: str) -> None:
    """Invariant: unknown and known temporary replies are never final (P7)."""
    assert table_of().judge(Reply(code, "", text), final=False).action not in (Action.BOUNCE, Action.SUPPRESS)


def test_no_built_in_row_could_end_a_recipient_on_a_4xx() -> None:
    for row in built_in():
        if row.get("action") in ("bounce", "suppress"):
            assert row["code"].startswith("5"), row["name"]
    assert all(default_action(one, final=False) not in (Action.BOUNCE, Action.SUPPRESS) for one in Class)


def test_rules_of_a_pool_go_before_the_built_in_ones_in_their_order() -> None:
    mine = (
        ReplyRule(name="mine", code="550", enhanced_code="5.1.x", pattern="who", classification=Class.POLICY, action=Action.RETRY),
        ReplyRule(name="later", code="5xx", classification=Class.CONTENT),
    )
    table = table_of(mine)
    assert table.judge(Reply(550, "5.1.1", "WHO?"), final=True).rule == "mine"
    assert table.judge(Reply(550, "5.1.1", "else"), final=True).rule == "later"
    assert table.judge(Reply(451, "4.7.1", "else"), final=False).rule == "throttle-codes"


@pytest.mark.parametrize(
    ("code", "fits"), [("5.7.1", True), ("x.7.x", True), ("4.7.1|5.7.1", True), ("x.x.x", True), ("5.7.10", False), ("4.7.1", False)]
)
def test_enhanced_codes_may_have_wildcards_and_alternatives(code: str, fits: bool) -> None:
    table = table_of((ReplyRule(name="mine", enhanced_code=code, classification=Class.TLS),))
    assert (table.judge(Reply(550, "5.7.1", "no"), final=True).rule == "mine") is fits
    assert table.judge(Reply(550, "", "hm"), final=True).rule == ""


@pytest.mark.parametrize("pattern", ["(?=look)", r"(a)\1", "(", "x" * 257])
def test_a_pattern_that_may_not_be_used_is_refused_with_a_sentence(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        compile_pattern(pattern)


def test_a_pattern_that_would_backtrack_for_ever_ends() -> None:
    """The classic (a+)+b$ against a long text: exponential for a backtracking engine, linear here. The test's own time limit is the assertion."""
    table = table_of((ReplyRule(name="bad", pattern="(a+)+b$|(x*)*y", classification=Class.OTHER),))
    assert table.judge(Reply(550, "", "a" * 100_000), final=True).rule == ""
