"""Throttling of failed authentications, under a clock that the test sets."""

import pytest

from postroom_ingress import throttle
from postroom_ingress.throttle import ADDRESS, USER, Attempt, Throttle


def fail(kept: Throttle, times: int, *, username: str = "u", address: str = "192.0.2.1", now: float = 0.0) -> None:
    for _ in range(times):
        kept.failed(Attempt(username, address), now)


def test_a_user_is_refused_from_everywhere_after_a_burst_and_let_through_again_one_by_one() -> None:
    kept = Throttle()
    for number in range(USER.burst):
        attempt = Attempt("u", f"192.0.2.{number}")
        assert kept.wait(attempt, 0.0) == 0
        kept.failed(attempt, 0.0)
    elsewhere = Attempt("u", "198.51.100.1")
    assert kept.wait(elsewhere, 0.0) == USER.seconds
    assert kept.wait(Attempt("other", "198.51.100.1"), 0.0) == 0
    assert kept.wait(elsewhere, USER.seconds) == 0
    kept.failed(elsewhere, USER.seconds)
    assert kept.wait(elsewhere, USER.seconds) == USER.seconds
    assert kept.wait(elsewhere, 1e6) == 0


def test_an_address_is_refused_for_all_users_and_an_ipv6_network_counts_as_one() -> None:
    kept = Throttle()
    for number in range(ADDRESS.burst):
        kept.failed(Attempt(f"u{number}", f"2001:db8::{number:x}"), 0.0)
    assert kept.wait(Attempt("fresh", "2001:db8::ffff"), 0.0) == ADDRESS.seconds
    assert kept.wait(Attempt("fresh", "2001:db8:0:1::1"), 0.0) == 0


def test_whoever_got_in_lately_is_not_locked_out_by_others_who_guess() -> None:
    kept = Throttle()
    kept.succeeded(Attempt("u", "10.0.0.1"), 0.0)
    for number in range(100):
        kept.failed(Attempt("u", f"203.0.113.{number}"), 1.0)
    assert kept.wait(Attempt("u", "10.0.0.1"), 1.0) == 0
    assert kept.wait(Attempt("u", "10.0.0.2"), 1.0) > 0


def test_the_same_wrong_password_again_is_one_guess() -> None:
    kept = Throttle()
    for now in range(1000):
        kept.failed(Attempt("u", "10.0.0.1", b"yesterday's"), float(now))
    assert kept.wait(Attempt("u", "10.0.0.2"), 1000.0) == 0
    fail(kept, USER.burst, now=1000.0)
    assert kept.wait(Attempt("u", "10.0.0.2"), 1000.0) > 0


def test_memory_is_bounded_whatever_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST", 500)
    kept = Throttle()
    for number in range(2000):
        kept.failed(Attempt(f"u{number}", f"2001:db8:{number & 0xFFFF:x}:{number >> 16:x}::1", str(number).encode()), 0.0)
        kept.succeeded(Attempt(f"u{number}", "10.0.0.1"), 0.0)
    assert len(kept) == 500


def test_what_is_no_address_is_a_bucket_of_its_own() -> None:
    assert (Attempt("u", "").network, Attempt("u", "::ffff:10.0.0.1").network, Attempt("u", "10.0.0.1").network) == ("", "10.0.0.1", "10.0.0.1")
