"""The common errors explained: cause, remedy, where to look. Pure; the entries are errors.toml, beside this file.

Delivery decides what a reply means (its class) and what is done; this says to people why it happened and what they can do. The first entry whose
class and pattern fit is taken; the entry of a class without a pattern is its last word, so every class has an explanation.
"""

import dataclasses
import functools
import importlib.resources
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from postroom_core.replyrule import compile_pattern

# As delivery's table: the sense of a reply stands at its beginning, and peers must not make us work.
_MOST_TEXT = 4096
_NAME = re.compile(r"\{(sender|domain|id)\}")


@dataclass(frozen=True, slots=True)
class Explanation:
    """`look` are commands and places; `side` is submission or delivery."""

    name: str
    title: str
    side: str
    cause: str
    remedy: str
    look: tuple[str, ...]

    def filled(self, *, sender: str = "", domain: str = "", message_id: str = "") -> "Explanation":
        """With the names of one message in `look`; what is not known stays a word in capitals."""
        names = {"sender": sender or "DOMAIN", "domain": domain or "DOMAIN", "id": message_id or "ID"}
        look = tuple(_NAME.sub(lambda found: names[found[1]], place) for place in self.look)
        return dataclasses.replace(self, look=look)

    def as_dict(self) -> dict[str, Any]:
        """For --json and the page."""
        return {"name": self.name, "title": self.title, "side": self.side, "cause": self.cause, "remedy": self.remedy, "look": list(self.look)}


@functools.cache
def entries() -> tuple[dict[str, Any], ...]:
    """The rows of errors.toml as they stand there."""
    return tuple(tomllib.loads((importlib.resources.files(__package__) / "errors.toml").read_text("utf-8"))["error"])


@functools.cache
def _compiled() -> tuple[tuple[Explanation, frozenset[str], Any], ...]:
    return tuple(
        (
            Explanation(entry["name"], entry["title"], entry["side"], entry["cause"], entry["remedy"], tuple(entry["look"])),
            frozenset(entry.get("class", ())),
            compile_pattern(entry["pattern"]) if "pattern" in entry else None,
        )
        for entry in entries()
    )


def explain(text: str, classification: str = "", *, side: str = "delivery") -> Explanation | None:
    """Of a reply, "CODE ENHANCED text", or of a reason in the same form. None when nothing fits."""
    line = text[:_MOST_TEXT].replace("\n", " ")
    for explanation, classes, pattern in _compiled():
        if explanation.side != side or (classes and classification not in classes):
            continue
        if pattern is None or pattern.search(line):
            return explanation
    return None
