"""SPF against the public RFC 7208 test suite (203 cases). The suite is not part of this tree: it ships in the source distribution of pyspf.

`.ci/run` brings it with `pip download --no-deps --no-binary :all: pyspf`; without it the cases are skipped.
"""

import os
import pathlib
import tarfile
from typing import Any

import pytest
import yaml

from postroom_insight import spf
from postroom_insight.question import Answer, Question, Status

_FOLDERS = (
    pathlib.Path(__file__).parent / "suite",
    pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "postroom-ci" / "pyspf",
)
_CASES = 203
# The suite explains by the name of the domain's owner when it gives no explanation of its own.
_DEFAULT = "DEFAULT"


def scenarios() -> list[dict[str, Any]]:
    for folder in _FOLDERS:
        for archive in folder.glob("pyspf-*.tar.gz"):
            with tarfile.open(archive) as opened:
                member = next(name for name in opened.getnames() if name.endswith("/rfc7208-tests.yml"))
                extracted = opened.extractfile(member)
                assert extracted is not None
                return [document for document in yaml.load_all(extracted.read(), yaml.BaseLoader) if document]
    return []


SCENARIOS = scenarios()
CASES = [(scenario, name) for scenario in SCENARIOS for name in scenario["tests"]]


class Zone:
    """Answers as the suite's zone data say: a record of type SPF stands for TXT unless TXT is given; "TIMEOUT" is silence for what else is asked."""

    def __init__(self, data: dict[str, list[Any]]) -> None:
        self._data = {name.lower(): records for name, records in data.items()}

    def answer(self, question: Question, depth: int = 0) -> Answer:
        name = question.name.lower().rstrip(".")
        records = self._data.get(name)
        if records is None:
            return Answer(Status.FAILED if name.startswith("error.") else Status.ABSENT)
        given = [(kind, value) for record in records if isinstance(record, dict) for kind, value in record.items()]
        if question.type == "TXT" and not any(kind == "TXT" for kind, _ in given):
            given = [("TXT" if kind == "SPF" else kind, value) for kind, value in given]
        values = [value for kind, value in given if kind == question.type and value != "NONE"]
        if "TIMEOUT" in values or (not values and "TIMEOUT" in records):
            return Answer(Status.FAILED)
        aliases = [value for kind, value in given if kind == "CNAME"]
        if not values and aliases and depth < 8:
            return self.answer(Question(aliases[0], question.type), depth + 1)
        return Answer(Status.FOUND if values else Status.EMPTY, tuple(_text(question.type, value) for value in values))


def _text(kind: str, value: Any) -> str:
    if kind == "TXT":
        return ("".join(value) if isinstance(value, list) else str(value)).encode("utf-8", "surrogateescape").decode("latin-1")
    return " ".join(value) if isinstance(value, list) else str(value)


def evaluate(zone: Zone, case: dict[str, Any]) -> spf.Verdict:
    asking = spf.check(case["host"], case["mailfrom"], case["helo"])
    answer: Answer | None = None
    while True:
        try:
            answer = zone.answer(asking.send(answer))  # type: ignore[arg-type]
        except StopIteration as done:
            assert isinstance(done.value, spf.Verdict)
            return done.value


@pytest.mark.skipif(not SCENARIOS, reason="the suite is not here: pip download --no-deps --no-binary :all: pyspf, see .ci/run")
def test_the_suite_is_whole() -> None:
    assert len(CASES) == _CASES


@pytest.mark.parametrize(("scenario", "name"), CASES, ids=[f"{s['description']}-{n}".replace(" ", "-") for s, n in CASES])
def test_the_result_is_one_that_the_suite_allows(scenario: dict[str, Any], name: str) -> None:
    case = scenario["tests"][name]
    verdict = evaluate(Zone(scenario["zonedata"]), case)
    allowed = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert verdict.result in allowed, verdict
    wanted = case.get("explanation")
    if wanted is not None and verdict.result == "fail":
        assert (verdict.explanation or _DEFAULT) == wanted
