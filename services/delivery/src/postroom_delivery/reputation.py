"""Outgoing spam control: what a sender's results say, and what is done about it. Pure; reputation_keeper asks the roll-ups and keeps the answer.

Four signals, each with thresholds of the SendingPool: recipients that do not exist, complaints, refusals as spam or for the sender's reputation,
and messages in two hours compared with what is usual. A threshold that is passed alerts, slows down or pauses the *narrowest* sender that explains
it: a credential before its domain, a domain before its tenant; what a curbed sender did does not count against the wider one: the others go on.
False positives: nothing is judged below a minimum of recipients and of bad ones, and every action carries its numbers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from postroom_core.documents import Reputation, Thresholds
from postroom_core.reply import Reply
from postroom_delivery.spool.curbs import Curb
from postroom_delivery.spool.model import Allowance
from postroom_delivery.spool.rollup import HOUR_MS

LEVELS = ("none", "alert", "slow", "pause")
EVENTS = {"none": "resumed", "alert": "alerted", "slow": "slowed", "pause": "paused"}
SCOPES = ("credential", "domain", "tenant")
# Roll-ups have whole hours: this one and the one before, so that a new hour does not forget everything.
WINDOW_HOURS = 2
USUAL_HOURS = 24
# So few bad ones are chance, whatever share they are: ten typing errors, five people who took the wrong button.
LEAST_BAD, LEAST_COMPLAINTS = 10, 5
# An alert and a slower pace last this long after they were last deserved; a pause has its own time.
HOLD_MS = HOUR_MS
_UNKNOWN = frozenset({"unknown-user", "disabled"})
_SPAM = frozenset({"blocked", "content"})
# (group's values: tenant, domain, credential, pool[, class]; measure, bucket, count), see postroom_delivery.spool.rollup.
Fact = tuple[tuple[str, ...], str, int, int]


@dataclass(frozen=True, slots=True)
class Sender:
    """Who: the domain is "" for a tenant, the credential for a domain."""

    tenant: str
    domain: str = ""
    credential: str = ""

    @property
    def scope(self) -> str:
        return "credential" if self.credential else "domain" if self.domain else "tenant"

    @property
    def name(self) -> str:
        """In the spool, and for people: credential:TENANT/DOMAIN/CREDENTIAL, domain:TENANT/DOMAIN, tenant:TENANT."""
        return f"{self.scope}:" + "/".join(part for part in (self.tenant, self.domain, self.credential) if part)

    def scopes(self) -> tuple["Sender", ...]:
        """Itself and who it belongs to, the narrowest first."""
        wider = (Sender(self.tenant, self.domain), Sender(self.tenant))
        return tuple(dict.fromkeys((self, *wider)))


@dataclass(frozen=True, slots=True)
class Finding:
    """The level that the numbers ask for, and the numbers."""

    level: str = "none"
    signal: str = ""
    text: str = ""


def counts(facts: Iterable[Fact], usual: Iterable[Fact]) -> dict[tuple[Sender, str], Counter[str]]:
    """Per credential and pool: results, unknown, spam, delivered, complained; accepted, and usual: accepted in the USUAL_HOURS before."""
    found: dict[tuple[Sender, str], Counter[str]] = {}
    for (tenant, domain, credential, pool, classification), measure, bucket, count in facts:
        of = found.setdefault((Sender(tenant, domain, credential), pool), Counter())
        if bucket >= 0:
            continue  # a latency
        if measure in ("delivered", "bounced"):
            of["results"] += count
        if measure in ("delivered", "complained", "accepted"):
            of[measure] += count
        if measure in ("bounced", "bounced-later"):
            of["unknown"] += count if classification in _UNKNOWN else 0
            of["spam"] += count if classification in _SPAM else 0
    for (tenant, domain, credential, pool), measure, _, count in usual:
        if measure == "accepted":
            found.setdefault((Sender(tenant, domain, credential), pool), Counter())["usual"] += count
    return found


def judge(of: Mapping[str, int], policy: Reputation) -> Finding:
    """The worst finding about some numbers."""
    signals = (
        ("unknown-recipients", of.get("unknown", 0), of.get("results", 0), LEAST_BAD, policy.hard_bounces, "recipients do not exist"),
        ("complaints", of.get("complained", 0), of.get("delivered", 0), LEAST_COMPLAINTS, policy.complaints, "recipients complained"),
        ("spam", of.get("spam", 0), of.get("results", 0), LEAST_BAD, policy.spam, "recipients were refused as spam or for the sender's reputation"),
    )
    found = [Finding()]
    for signal, bad, whole, least, thresholds, words in signals:
        if whole >= policy.minimum_recipients and bad >= least:
            share = 100 * bad / whole
            level, threshold = _level(share, thresholds)
            found.append(Finding(level, signal, f"{bad} of {whole} {words} ({share:.2g} %; from {threshold:g} %)") if threshold else Finding())
    found.append(_volume(of, policy))
    return max(found, key=lambda one: LEVELS.index(one.level))


def _volume(of: Mapping[str, int], policy: Reputation) -> Finding:
    """Judged only for who has sent before: a new sender is none that was taken over."""
    usual = of.get("usual", 0) / USUAL_HOURS * WINDOW_HOURS
    accepted = of.get("accepted", 0)
    if not usual or accepted < policy.minimum_recipients:
        return Finding()
    times = accepted / usual
    level, threshold = _level(times, policy.volume)
    text = f"{accepted} messages in the last {WINDOW_HOURS} hours, {times:.0f} times the usual {usual:.1f} (from {threshold:g} times)"
    return Finding(level, "volume", text) if threshold else Finding()


def _level(value: float, thresholds: Thresholds) -> tuple[str, float]:
    """(level, the threshold that was reached); none and 0 when none was."""
    for level in reversed(LEVELS[1:]):
        threshold: float | None = getattr(thresholds, level)
        if threshold is not None and value >= threshold:
            return level, threshold
    return "none", 0.0


def decide(
    found: Mapping[tuple[Sender, str], Counter[str]], curbs: Mapping[str, Curb], policy_of: Callable[[str], Reputation], now: int
) -> list[Curb]:
    """What changes now. `curbs` by name are what is in force or was; `policy_of` a pool's policy."""
    changed: dict[str, Curb] = {}
    left = {key: of for key, of in found.items() if policy_of(key[1]).enforcement != "Off"}
    for scope in SCOPES:
        sums: dict[tuple[Sender, str], Counter[str]] = {}
        for (sender, pool), of in left.items():
            wider = next((one for one in sender.scopes() if one.scope == scope), None)
            if wider is not None:
                sums.setdefault((wider, pool), Counter()).update(of)
        curbed = set()
        for (sender, pool), of in sums.items():
            curb = curbs.get(sender.name)
            after = _step(sender.name, curb, judge(of, policy_of(pool)), policy_of(pool), now)
            if after is not None:
                changed[sender.name] = after
            if in_force(after or curb, now) != "none" or _spared(curb, now):
                curbed.add(sender)
        left = {(sender, pool): of for (sender, pool), of in left.items() if not curbed & set(sender.scopes())}
    known = {sender.name for sender, _ in found for sender in sender.scopes()}
    over = [curb for name, curb in curbs.items() if name not in known and curb.level != "none" and curb.until <= now]
    return [*changed.values(), *(_ended(curb, now) for curb in over)]


def _step(name: str, curb: Curb | None, finding: Finding, policy: Reputation, now: int) -> Curb | None:
    """The curb after a look; None when it stays as it is."""
    before = in_force(curb, now)
    wanted = finding.level
    if policy.enforcement == "Observe" and wanted != "none":
        wanted = "alert"
    if _spared(curb, now):
        return None
    if LEVELS.index(wanted) > LEVELS.index(before):
        until = now + (policy.pause_hours * HOUR_MS if wanted == "pause" else HOLD_MS)
        return Curb(name, wanted, finding.signal, finding.text, now, until, policy.slow_messages_per_hour)
    if curb is not None and wanted == before and before in ("alert", "slow") and curb.until - now < HOLD_MS // 2:
        return replace(curb, text=finding.text, signal=finding.signal, until=now + HOLD_MS)
    if curb is not None and curb.level != "none" and curb.until <= now:
        return _ended(curb, now)
    return None


def _spared(curb: Curb | None, now: int) -> bool:
    return curb is not None and now < curb.spared_until


def _ended(curb: Curb, now: int) -> Curb:
    return replace(curb, level="none", since=now, text=f"the time is over; before: {curb.text}")


def resumed(curb: Curb, spare_ms: int, now: int) -> Curb:
    """By a person's command: not judged again for so long, because the numbers that were its reason are still there."""
    return replace(curb, level="none", since=now, until=now, spared_until=now + spare_ms, text=f"by command; before: {curb.text}")


def in_force(curb: Curb | None, now: int) -> str:
    """The level that counts now."""
    return curb.level if curb is not None and curb.until > now else "none"


def refusal(curbs: Mapping[str, Curb], sender: Sender, now: int) -> Reply | None:
    """The reply to a message of a paused sender."""
    for one in sender.scopes():
        curb = curbs.get(one.name)
        if curb is not None and in_force(curb, now) == "pause":
            until = datetime.fromtimestamp(curb.until / 1000, UTC).strftime("%Y-%m-%d %H:%M")
            return Reply(450, "4.7.1", f"Sending by this {one.scope} is paused until {until} UTC: {curb.text}")
    return None


def allowances(curbs: Mapping[str, Curb], sender: Sender, now: int) -> tuple[Allowance, ...]:
    """What a message of a slowed sender counts against."""
    slowed = [(one, curbs[one.name]) for one in sender.scopes() if in_force(curbs.get(one.name), now) == "slow"]
    return tuple(Allowance(f"{one.name}:slowed", 3600, curb.pace, 1, f"messages (slowed down: {curb.text})") for one, curb in slowed)


def changes(before: Mapping[str, Curb], after: Sequence[Curb]) -> list[Curb]:
    """Those whose level changed: what people are told of."""
    return [curb for curb in after if curb.level != (before[curb.name].level if curb.name in before else "none")]
