"""What a reply means and what is done about it: (code, enhanced code, text) → class → action. Pure.

The built-in table is replies.toml, beside this file; a pool's `replyRules` are asked before it. The first row that fits decides. A row without an
action has its class's, from the small table below. Whether an attempt is final follows from the reply's code (RFC 5321 section 4.2.1) unless a
row's action says otherwise, which only a person's rule does for a 4xx: no unknown text ever makes one permanent.
"""

import functools
import importlib.resources
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from postroom_core.documents import ReplyRule
from postroom_core.reply import Reply
from postroom_core.replyrule import Action, Class, compile_pattern

__all__ = ["Action", "Class", "Judgement", "Table", "built_in", "classify", "table_of"]

# The sense of a reply stands at its beginning; what follows are links and tickets. Bounds the work that a peer can cause.
_MOST_TEXT = 4096

# Class → (action when the attempt may be repeated, action when it is final).
_ACTIONS: dict[Class, tuple[Action, Action]] = {
    Class.THROTTLE: (Action.REDUCE_RATE, Action.REDUCE_RATE),
    Class.MAILBOX_FULL: (Action.RETRY_SLOWLY, Action.BOUNCE),
    Class.UNKNOWN_USER: (Action.RETRY, Action.SUPPRESS),
    Class.DISABLED: (Action.RETRY, Action.SUPPRESS),
    Class.BLOCKED: (Action.ALERT, Action.ALERT),
    Class.AUTHENTICATION: (Action.ALERT, Action.ALERT),
}
_OTHERWISE = (Action.RETRY, Action.BOUNCE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`rule` is the row's name, "" when none fits."""

    classification: Class
    action: Action
    rule: str = ""


class _Row:
    """A compiled rule."""

    def __init__(self, rule: ReplyRule) -> None:
        self.rule = rule
        self._code = rule.code.rstrip("x")
        self._enhanced = [code.split(".") for code in rule.enhanced_code.split("|")] if rule.enhanced_code else []
        self._pattern: Any = compile_pattern(rule.pattern) if rule.pattern else None

    def fits(self, code: str, enhanced: list[str], text: str) -> bool:
        if not code.startswith(self._code):
            return False
        if self._enhanced and not any(_same(wanted, enhanced) for wanted in self._enhanced):
            return False
        return self._pattern is None or self._pattern.search(text) is not None


def _same(wanted: list[str], found: list[str]) -> bool:
    return len(wanted) == len(found) and all(part in ("x", other) for part, other in zip(wanted, found, strict=True))


class Table:
    """Rules in the order in which they are asked."""

    def __init__(self, rules: Iterable[ReplyRule]) -> None:
        self._rows = [_Row(rule) for rule in rules]

    def judge(self, reply: Reply, *, final: bool) -> Judgement:
        """`final`: whether the attempt ends the recipient's story as things stand; decides between a class's two actions."""
        code, enhanced = str(reply.code), reply.enhanced.split(".")
        text = reply.text[:_MOST_TEXT].replace("\n", " ")
        for row in self._rows:
            if row.fits(code, enhanced, text):
                found = row.rule
                return Judgement(found.classification, found.action or default_action(found.classification, final=final), found.name)
        return Judgement(Class.OTHER, default_action(Class.OTHER, final=final))


def default_action(classification: Class, *, final: bool) -> Action:
    """The action of a class when its row names none."""
    return _ACTIONS.get(classification, _OTHERWISE)[final]


def read(entries: Iterable[dict[str, Any]]) -> tuple[ReplyRule, ...]:
    """Rules from tables with the field names of `replyRules`; other fields (`seen`) are for people and tests."""
    return tuple(
        ReplyRule(
            name=entry["name"],
            code=entry.get("code", ""),
            enhanced_code=entry.get("enhancedCode", ""),
            pattern=entry.get("pattern", ""),
            classification=Class(entry["class"]),
            action=Action(entry["action"]) if "action" in entry else None,
        )
        for entry in entries
    )


@functools.cache
def built_in() -> tuple[dict[str, Any], ...]:
    """The rows of replies.toml as they stand there."""
    text = (importlib.resources.files(__package__) / "replies.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["rule"])


@functools.lru_cache(maxsize=256)  # one per pool and edit
def table_of(rules: tuple[ReplyRule, ...] = ()) -> Table:
    """A pool's rules before the built-in ones."""
    return Table((*rules, *read(built_in())))


def classify(reply: Reply) -> Class:
    """The class of a reply by the built-in table."""
    return Class.SUCCESS if reply.kind == 2 else table_of().judge(reply, final=reply.kind == 5).classification
