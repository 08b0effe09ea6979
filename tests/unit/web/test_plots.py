"""Plots: well-formed, bounded, and in words."""

import xml.etree.ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_web import plots


@given(st.integers(0, 10**12))
def test_the_ceiling_is_round_and_near(value: int) -> None:
    top = plots.ceiling(value)
    assert top >= max(value, 4)
    assert top <= max(2.5 * value, 5)
    assert str(top).rstrip("0") in ("1", "2", "5")


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=60))
def test_every_point_lies_inside_of_the_plot(values: list[int]) -> None:
    drawn = xml.etree.ElementTree.fromstring(plots.lines("t", {"delivered": values, "deferred": values}, ["x"] * len(values)))
    for line in drawn.iter("polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= plots.WIDTH and 0 <= y <= plots.HEIGHT


def test_a_plot_says_in_words_what_it_shows_and_escapes_what_it_is_given() -> None:
    drawn = xml.etree.ElementTree.fromstring(plots.lines("Last <hour>", {"delivered": [1, 2], "bounced": [0, 4]}, ["a&b", "c"]))
    assert drawn.attrib["aria-label"] == "Last <hour>: delivered 3; bounced 4"
    assert "style" not in drawn.attrib


@pytest.mark.parametrize(("value", "top", "width"), [(5, 10, "50.0"), (0, 0, "0"), (10, 10, "100.0")])
def test_a_bar_is_a_share(value: int, top: int, width: str) -> None:
    assert f'width="{width}"' in plots.bar(value, top, "delivered")
