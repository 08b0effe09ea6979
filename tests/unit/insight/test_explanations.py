"""The catalogue of errors: every entry against its own replies, and every reply that the classification table knows has an explanation."""

import re
from typing import Any

import pytest

from postroom_core.reply import Reply
from postroom_core.replyrule import Class
from postroom_delivery.classify import built_in, classify
from postroom_insight.explanations import entries, explain

_REPLY = re.compile(r"(\d{3}) (?:(\d\.\d+\.\d+) )?(.+)")


def own() -> list[Any]:
    return [pytest.param(entry, line, id=f"{entry['name']}: {line[:40]}") for entry in entries() for line in entry["seen"]]


@pytest.mark.parametrize(("entry", "line"), own())
def test_every_reply_is_explained_by_its_own_entry(entry: dict[str, Any], line: str) -> None:
    classes = entry.get("class", [""])
    found = explain(line, classes[0], side=entry["side"])
    assert found is not None and found.name == entry["name"]


@pytest.mark.parametrize(("entry", "line"), [case for case in own() if case.values[0]["side"] == "delivery" and _REPLY.fullmatch(case.values[1])])
def test_delivery_gives_such_a_reply_the_class_that_the_entry_names(entry: dict[str, Any], line: str) -> None:
    match = _REPLY.fullmatch(line)
    assert match is not None
    assert classify(Reply(int(match[1]), match[2] or "", match[3])).value in entry["class"]


def test_every_class_has_a_last_word() -> None:
    last = {name for entry in entries() if "pattern" not in entry for name in entry["class"]}
    assert last == {found.value for found in Class} - {"success"}


@pytest.mark.parametrize("line", [line for row in built_in() for line in row["seen"]])
def test_every_reply_of_the_classification_table_is_explained(line: str) -> None:
    match = _REPLY.search(line)
    assert match is not None
    classification = classify(Reply(int(match[1]), match[2] or "", match[3])).value
    found = explain(match[0], classification)
    assert found is not None
    assert found.name != "other"


def test_the_names_of_a_message_stand_where_to_look() -> None:
    found = explain("550 5.7.26 This mail has been blocked because the sender is unauthenticated.", "authentication")
    assert found is not None
    assert found.filled(sender="d.example").look == ("postroom check d.example",)
    assert found.filled().look == ("postroom check DOMAIN",)


def test_a_reply_without_end_costs_no_time() -> None:
    assert explain("550 5.7.1 " + "a" * 10_000_000, "blocked") is not None
