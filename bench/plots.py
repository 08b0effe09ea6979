"""Draws docs/images/scale-*.svg of the results in bench/results: what grows with the queue.

uv run python bench/plots.py
"""

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS, IMAGES = ROOT / "bench" / "results", ROOT / "docs" / "images"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 64, 16, 34, 56
ENGINES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed")
STYLE = "text{font:12px sans-serif;fill:#374151}.title{font-weight:bold}.grid{stroke:#e5e7eb}.back{fill:#ffffff}"
CPU = "CPU of delivery and database, ms a message"
Points = Sequence[tuple[float, float]]


def ceiling(value: float) -> float:
    """The next round number of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def lines(title: str, below: str, series: Mapping[str, Points]) -> str:
    """A line for each series; the horizontal axis is logarithmic, the vertical one begins at 0."""
    xs = sorted({x for points in series.values() for x, _ in points})
    top = ceiling(max(y for points in series.values() for _, y in points))
    first, last = math.log10(xs[0]), math.log10(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - first) / (last - first) if last > first else 0.5
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    parts = [f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>', f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>']
    for quarter in range(5):
        _, y = place(xs[0], top * quarter / 4)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * quarter / 4:g}</text>')
    for x in xs:
        parts.append(f'<text x="{place(x, 0)[0]:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,.0f}</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{text}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (place(*point) for point in points)]
        parts.append(f'<text x="{LEFT + 140 * number}" y="{HEIGHT - 8}" style="fill:{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(below)}</text>')
    inside = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>\n{inside}\n</svg>\n'


def by_rows(value: Callable[[Any], float]) -> dict[str, Points]:
    """For each engine (rows, value) of the results of long_queue.py."""
    found: dict[str, Points] = {}
    for engine, name in ENGINES.items():
        files = {int(file.stem.rpartition("-")[2]): file for file in RESULTS.glob(f"long-queue-{engine}-*.json") if file.stem.count("-") == 3}
        points = [(float(rows), value(json.loads(file.read_text()))) for rows, file in sorted(files.items())]
        if points:
            found[name] = points
    return found


def main() -> None:
    rows = "due messages in the queue"
    plots = {
        "cpu": lines("CPU of delivery and database, ms a message", rows, by_rows(lambda found: found["figures"][CPU])),
        "answers": lines("CPU of the slowest answer to a question or an action, seconds", rows, by_rows(lambda f: max(f["cpu seconds"].values()))),
        "disk": lines("Size of the spool, MiB", rows, by_rows(lambda found: found["figures"]["on disk, MiB"])),
    }
    for name, text in plots.items():
        (IMAGES / f"scale-{name}.svg").write_text(text)


if __name__ == "__main__":
    main()
