"""Go durations of the resources: hours, minutes and seconds (the schema admits nothing else). Pure."""

import re

_PART = re.compile(r"(\d+)([hms])")
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def seconds(text: str) -> float:
    """The duration in seconds."""
    return float(sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
