"""Metrics of several processes as one text."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from postroom_ingress.processes import total


def one(messages: int, sessions: int, seconds: list[float]) -> str:
    registry = CollectorRegistry()
    Counter("postroom_messages", "Messages", ["outcome"], registry=registry).labels('2"x\\').inc(messages)
    Gauge("postroom_sessions", "Sessions", registry=registry).set(sessions)
    histogram = Histogram("postroom_seconds", "Time", buckets=(1, 2), registry=registry)
    for value in seconds:
        histogram.observe(value)
    Gauge("process_memory", "Not ours", registry=registry).set(1)
    return generate_latest(registry).decode()


def test_the_sum_is_that_of_one_process_that_saw_everything() -> None:
    wanted = [line for line in one(5, 7, [0.5, 1.5, 3]).splitlines() if "process_" not in line and "_created" not in line]
    assert total([one(2, 3, [0.5, 3]), one(3, 4, [1.5])]).splitlines() == wanted


def test_no_process_no_metrics() -> None:
    assert total([]) == ""
