"""Steps of the wall clock that the spool must notice. Pure.

Times in the spool are wall time, because they outlive processes. A clock that goes forward makes work due early, which harms nobody. One that goes
back would leave retries, blocks and leases in the future for as long as the step: so the spool remembers the latest time that it has seen, and
whoever finds the clock far behind it moves what waits back by the difference. What was asked for by date (HOLDUNTIL, DELIVERBY) and lifetimes stay.
"""

# Clocks are corrected by seconds all the time, and nothing waits so short that less than this matters.
TOLERANCE_MS = 60_000


def back(latest: int | None, now: int) -> int:
    """By how many milliseconds the clock has gone back, 0 when it has not; `latest` is the latest time that the spool has seen."""
    return latest - now if latest is not None and latest - now > TOLERANCE_MS else 0
