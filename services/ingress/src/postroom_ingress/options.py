"""What a client asks for beyond the plain message, by parameters of MAIL: its values, their syntax and their limits. Pure.

RFC 2852 (DELIVERBY), RFC 4865 (FUTURERELEASE), RFC 6531 (SMTPUTF8), RFC 6710 (MT-PRIORITY), RFC 8689 (REQUIRETLS), RFC 3030 (BINARYMIME). Who may ask
is the dialogue's question; what comes of it is delivery's.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from postroom_core.reply import Reply

# RFC 3339 as RFC 4865 section 4.2 uses it; seconds may have a fraction.
_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:[Zz]|[+-]\d{2}:\d{2})")
_BY = re.compile(r"([+-]?\d{1,9});([RNrn])([Tt]?)")
_HOLD_FOR = re.compile(r"\d{1,9}")
_PRIORITY = re.compile(r"-?\d")


class BadOption(ValueError):
    """Carries the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Wishes:
    """The parameters as they were given. Seconds; `hold_until` in Unix milliseconds; None where a parameter was absent."""

    smtputf8: bool = False
    require_tls: bool = False
    binary: bool = False
    hold_for: int | None = None
    hold_until: int | None = None
    by: int | None = None
    by_return: bool = False
    priority: int | None = None

    @property
    def holds(self) -> bool:
        """Whether a later release was asked for (RFC 4865)."""
        return self.hold_for is not None or self.hold_until is not None


@dataclass(frozen=True, slots=True)
class MailOptions:
    """What goes with the envelope to delivery; times in Unix milliseconds, 0 is none. See spool.proto."""

    smtputf8: bool = False
    require_tls: bool = False
    tls_optional: bool = False
    binary: bool = False
    hold_until: int = 0
    deliver_by: int = 0
    deliver_by_return: bool = False
    priority: int = 0


NO_WISHES = Wishes()
PLAIN = MailOptions()


def parse(found: dict[str, str]) -> Wishes:
    """Of the parameters by upper-case keyword. Raises BadOption with 501 or 555."""
    for flag in ("SMTPUTF8", "REQUIRETLS"):
        if found.get(flag):
            raise BadOption(Reply(501, "5.5.4", f"{flag} has no value"))
    if "HOLDFOR" in found and "HOLDUNTIL" in found:
        raise BadOption(Reply(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other"))
    by, by_return = _by(found["BY"]) if "BY" in found else (None, False)
    return Wishes(
        smtputf8="SMTPUTF8" in found,
        require_tls="REQUIRETLS" in found,
        binary=found.get("BODY", "").upper() == "BINARYMIME",
        hold_for=_hold_for(found["HOLDFOR"]) if "HOLDFOR" in found else None,
        hold_until=_date_time(found["HOLDUNTIL"]) if "HOLDUNTIL" in found else None,
        by=by,
        by_return=by_return,
        priority=_priority(found["MT-PRIORITY"]) if "MT-PRIORITY" in found else None,
    )


def decide(wishes: Wishes, now: int, most_hold: int) -> MailOptions:
    """The wishes as times of the clock; `now` in Unix milliseconds, `most_hold` in seconds. Raises BadOption when a limit is passed."""
    hold_until = now + 1000 * wishes.hold_for if wishes.hold_for is not None else wishes.hold_until or 0
    if hold_until > now + 1000 * most_hold:
        raise BadOption(Reply(554, "5.5.4", f"A message is held for {most_hold} seconds at most"))
    if wishes.by is not None and wishes.by_return and 1000 * wishes.by + now <= hold_until:
        raise BadOption(Reply(501, "5.5.4", "The message would be returned before it is released"))
    return MailOptions(
        require_tls=wishes.require_tls,
        binary=wishes.binary,
        hold_until=hold_until if hold_until > now else 0,  # a time that has passed is now (RFC 4865 section 5)
        deliver_by=now + 1000 * wishes.by if wishes.by is not None else 0,
        deliver_by_return=wishes.by_return,
        priority=wishes.priority or 0,
    )


def date_time(ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC, for the EHLO line of FUTURERELEASE."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _by(value: str) -> tuple[int, bool]:
    match = _BY.fullmatch(value)
    if match is None:
        raise BadOption(Reply(501, "5.5.4", "BY must be SECONDS;R or SECONDS;N"))
    if match[3]:
        raise BadOption(Reply(555, "5.5.4", "BY with a trace modifier is not supported"))
    seconds, by_return = int(match[1]), match[2] in "Rr"
    if by_return and seconds <= 0:  # RFC 2852 section 4
        raise BadOption(Reply(501, "5.5.4", "BY with R needs a time that has not passed"))
    return seconds, by_return


def _hold_for(value: str) -> int:
    if not _HOLD_FOR.fullmatch(value):
        raise BadOption(Reply(501, "5.5.4", "HOLDFOR must be a number of seconds"))
    return int(value)


def _date_time(value: str) -> int:
    """Unix milliseconds."""
    if not _DATE_TIME.fullmatch(value):
        raise BadOption(Reply(501, "5.5.4", "HOLDUNTIL must be a date and time as 2026-12-24T18:00:00Z"))
    try:
        return int(datetime.fromisoformat(value.upper()).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise BadOption(Reply(501, "5.5.4", "HOLDUNTIL is no date and time that exists")) from error


def _priority(value: str) -> int:
    if not _PRIORITY.fullmatch(value):
        raise BadOption(Reply(501, "5.5.4", "MT-PRIORITY must be -9 to 9"))
    return int(value)
