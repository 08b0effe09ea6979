"""A zone as a dictionary, and a driver that runs an evaluator against it."""

from collections.abc import Mapping, Sequence

from postroom_insight.question import Answer, Asking, Question, Status, T

Zone = Mapping[tuple[str, str], Sequence[str] | Status]


def drive(asking: Asking[T], zone: Zone) -> tuple[T, list[str]]:
    """The result and the names that were asked. An unknown name is absent; a known name without the type is empty."""
    asked: list[str] = []
    answer: Answer | None = None
    while True:
        try:
            question = asking.send(answer)  # type: ignore[arg-type]
        except StopIteration as done:
            return done.value, asked
        asked.append(question.name)
        answer = _answer(question, zone)


def _answer(question: Question, zone: Zone) -> Answer:
    found = zone.get((question.name, question.type))
    if isinstance(found, Status):
        return Answer(found)
    if found:
        return Answer(Status.FOUND, tuple(found))
    return Answer(Status.EMPTY if any(name == question.name for name, _ in zone) else Status.ABSENT)
