"""Plots as inline SVG: lines over time and horizontal bars. Pure: numbers in, text out. Colours are classes of the style sheet, so that both themes
and the strict content policy hold; every plot says in words what it shows.
"""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 16, 30
_STEPS = (1, 2, 5)


def ceiling(value: float) -> int:
    """The next round number of 1, 2 or 5 times a power of ten; at least 4, so that the four lines of the grid are whole numbers."""
    power = 1
    while True:
        for step in _STEPS:
            if step * power >= max(value, 4):
                return step * power
        power *= 10


def lines(title: str, series: Mapping[str, Sequence[int]], labels: Sequence[str]) -> str:
    """One line per series, all of the length of `labels`; the first is filled. A plot is as wide as its column; half a page is meant."""
    top = ceiling(max((max(values, default=0) for values in series.values()), default=0))
    count = len(labels)
    parts = [*_grid(top), *_ticks(labels)]
    for index, (name, values) in enumerate(series.items()):
        points = [f"{_x(at, count):.1f},{_y(value, top):.1f}" for at, value in enumerate(values)]
        if index == 0:
            first, last = f"{_x(0, count):.1f}", f"{_x(count - 1, count):.1f}"
            parts.append(f'<polygon class="area s-{escape(name)}" points="{first},{_y(0, top):.1f} {" ".join(points)} {last},{_y(0, top):.1f}"/>')
        parts.append(f'<polyline class="line s-{escape(name)}" points="{" ".join(points)}"/>')
    told = "; ".join(f"{name} {sum(values)}" for name, values in series.items())
    return _svg(f"{title}: {told}", parts)


def _svg(told: str, parts: Sequence[str]) -> str:
    inside = "".join(parts)
    return f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}"><title>{escape(told)}</title>{inside}</svg>'


def _x(at: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (at / (count - 1) if count > 1 else 0.5)


def _y(value: float, top: int) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _grid(top: int) -> list[str]:
    rows = []
    for quarter in range(5):
        y = _y(top * quarter / 4, top)
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if quarter % 2 == 0:
            rows.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(top * quarter // 4)}</text>')
    return rows


def _ticks(labels: Sequence[str]) -> list[str]:
    """Five labels at most, the last one at the right end."""
    step = max(1, -(-len(labels) // 5))
    at_places = range(len(labels) - 1, -1, -step)
    places = []
    for at in at_places:
        x = _x(at, len(labels))
        anchor = "end" if x > WIDTH - 40 else "middle"
        places.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{escape(labels[at])}</text>')
    return places


def _short(value: int) -> str:
    return f"{value / 1_000_000:g}M" if value >= 1_000_000 else f"{value / 1000:g}k" if value >= 10_000 else str(value)


def bar(value: int, top: int, kind: str) -> str:
    """A horizontal bar for a table's row; the number stands beside it."""
    width = round(100 * value / top, 1) if top else 0
    drawn = f'<rect class="b-{escape(kind)}" width="{width}" height="8" rx="2"/>'
    return f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
