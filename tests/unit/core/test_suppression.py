"""The filter of suppressed addresses: never a wrong no, seldom a wrong yes, and nothing that lets one scope speak for another."""

from hypothesis import given
from hypothesis import strategies as st

from postroom_core.suppression import Filter, Key, keys, normal

key = st.tuples(st.sampled_from(["global", "tenant", "domain"]), st.text(max_size=5), st.text(max_size=20))


@given(st.lists(key, max_size=50))
def test_what_was_added_is_found_also_after_the_wire(entries: list[Key]) -> None:
    made = Filter.sized(len(entries))
    for entry in entries:
        made.add(entry)
    assert all(entry in Filter(bytes(made)) for entry in entries)


def test_one_address_in_a_hundred_is_asked_for_in_vain() -> None:
    made = Filter.sized(10_000)
    for number in range(10_000):
        made.add(("tenant", "t", f"in{number}@x.example"))
    wrong = sum(("tenant", "t", f"out{number}@x.example") in made for number in range(10_000))
    assert wrong < 200


def test_a_filter_has_a_least_and_a_greatest_size() -> None:
    assert len(bytes(Filter.sized(0))) == 1024
    assert len(bytes(Filter.sized(10**9))) == 512 * 1024


def test_keys_are_those_of_all_scopes_in_lower_case() -> None:
    assert keys("t", "d.example", "B@X.example") == (
        ("global", "", "b@x.example"),
        ("tenant", "t", "b@x.example"),
        ("domain", "d.example", "b@x.example"),
    )
    assert normal("B@X.example") == "b@x.example"
