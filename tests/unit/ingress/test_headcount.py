"""Counting connections together: what several processes see, what is left of one that died, what a minute of arrivals comes to."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from postroom_ingress.headcount import Headcount, size

KEYS = ["a", "b", "c"]


def rows(processes: int) -> list[Headcount]:
    memory = bytearray(size(processes))
    return [Headcount(memory, row) for row in range(processes)]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(KEYS), st.booleans()), max_size=60))
def test_every_process_sees_what_all_of_them_hold(steps: list[tuple[int, str, bool]]) -> None:
    processes, held = rows(3), Counter[tuple[int, str]]()
    for process, key, holds in steps:
        if holds:
            processes[process].hold(key)
            processes[process].enter()
            held[process, key] += 1
        elif held[process, key]:
            processes[process].release(key)
            processes[process].leave()
            held[process, key] -= 1
    for counting in processes:
        assert [counting.held(key) for key in KEYS] == [sum(held[number, key] for number in range(3)) for key in KEYS]
        assert counting.total == held.total()
    assert [counting.own for counting in processes] == [sum(held[number, key] for key in KEYS) for number in range(3)]


def test_the_successor_of_a_process_that_died_begins_with_nothing() -> None:
    memory = bytearray(size(2))
    first, second = Headcount(memory, 0), Headcount(memory, 1)
    for process in (first, second):
        process.enter()
        process.hold("a")
        process.arrived("a", 0)
    Headcount(memory, 1)
    assert (first.total, first.held("a"), first.arrivals("a", 0)) == (1, 1, 1)


def test_arrivals_are_those_of_the_last_minute_over_all_processes() -> None:
    one, other = rows(2)
    for _ in range(4):
        one.arrived("a", 600)
        other.arrived("a", 630)
    assert one.arrivals("a", 659) == 8
    assert other.arrivals("a", 675) == 6, "a quarter of the next minute is over"
    assert other.arrivals("b", 675) == 0
    one.arrived("a", 675)
    assert one.arrivals("a", 690) == 5
    assert one.arrivals("a", 780) == 0


def test_a_thousand_keys_are_told_apart() -> None:
    """By a secret that is always the same here; with others a key in seventy thousand is not."""
    (headcount,) = rows(1)
    for number in range(1000):
        headcount.hold(f"address:192.0.{number // 256}.{number % 256}")
    assert [headcount.held(f"address:192.0.{number // 256}.{number % 256}") for number in range(1000)] == [1] * 1000
    assert [headcount.held(f"address:198.51.{number // 256}.{number % 256}") for number in range(1000)].count(0) >= 999
