"""Tables of benchmark results in Markdown. Pure."""

import statistics
from collections.abc import Mapping

from measure import Result


def spread(values: list[float], digits: int = 0, scale: float = 1.0) -> str:
    """Median, smallest and largest."""
    scaled = [value * scale for value in values]
    return f"{statistics.median(scaled):.{digits}f} ({min(scaled):.{digits}f} to {max(scaled):.{digits}f})"


def ratio(result: Result, base: Result | None) -> str:
    """Of the medians of the runs, which took turns."""
    return f"{statistics.median(result.rates) / statistics.median(base.rates):.2f}" if base is not None else ""


def table(results: Mapping[tuple[str, str], Result], syncs: Mapping[str, float | None], reference: str) -> list[str]:
    """One row per contender and case."""
    rows = [
        "| case | contender | messages/s, end to end | ratio | accepted/s | latency p50, p99 ms | CPU ms a message | written KiB a message |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, case), result in sorted(results.items(), key=lambda item: list(results).index(item[0])):
        latency = f"{statistics.median(result.p50) * 1000:.1f}, {statistics.median(result.p99) * 1000:.1f}" if result.p50 else ""
        parts = ", ".join(f"{part} {statistics.median(values):.2f}" for part, values in result.cpu_ms.items())
        written = f"{statistics.median(result.written) / 1024:.0f}"
        rates = f"{spread(result.rates)} | {ratio(result, results.get((reference, case)))} | {spread(result.accept_rates)}"
        rows.append(f"| {case} | {name} | {rates} | {latency} | {result.total_cpu():.2f}: {parts} | {written} |")
    known = [f"{name} {count:.2f}" for name, count in syncs.items() if count is not None]
    return [*rows, "", f"fsync and fdatasync calls a message at 4 KB, 20 sessions: {', '.join(known) or 'not counted'}"]
