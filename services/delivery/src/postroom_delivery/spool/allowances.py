"""Sending limits: what a message counts against which window, and the refusal when it does not fit. Pure; both engines count with it.

Windows are fixed: the hours and days of UTC. One row per limit is exact over all replicas, and *when* a client may go on is a fact that can be
told; a sliding window would need a row per message. The price: around the change of the window twice the limit can pass in a short time.
"""

from collections.abc import Mapping, Sequence

from postroom_core.reply import Reply
from postroom_delivery.spool.model import Allowance

Key = tuple[str, int]  # key and length of the window in seconds
Used = tuple[int, int]  # number of the window since the epoch, and what was counted in it
_NAMES = {3600: "hour", 86_400: "day"}


def count(allowances: Sequence[Allowance], used: Mapping[Key, Used], now: int) -> Reply | dict[Key, Used]:
    """What is to be stored when the message counts against all allowances, or the refusal when it does not fit one. `now` in milliseconds.

    The refusal tells the seconds until the last of the windows that are full has ended; 5xx when a message of this size never fits.
    """
    counted: dict[Key, Used] = {}
    waits: list[tuple[int, Allowance]] = []
    for allowance in allowances:
        if allowance.amount > allowance.maximum:
            return Reply(554, "5.7.1", f"The message counts {allowance.amount} against {_limit(allowance)}, it can never be accepted")
        key = (allowance.key, allowance.window_seconds)
        number, into = divmod(now // 1000, allowance.window_seconds)
        window, before = counted.get(key) or used.get(key, (number, 0))
        total = (before if window == number else 0) + allowance.amount
        counted[key] = (number, total)
        if total > allowance.maximum:
            waits.append((allowance.window_seconds - into, allowance))
    if waits:
        wait, allowance = max(waits, key=lambda found: found[0])
        return Reply(452, "4.7.1", f"{_limit(allowance).capitalize()} is reached, try again in {wait} s")
    return counted


def _limit(allowance: Allowance) -> str:
    window = _NAMES.get(allowance.window_seconds, f"{allowance.window_seconds} s")
    return f"the limit of {allowance.maximum} {allowance.unit} per {window} of this {allowance.key.partition(':')[0]}"
