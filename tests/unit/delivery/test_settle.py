"""What outcomes come to: state, next attempt, who is told. One table of NOTIFY, one of times, and the pool's rules."""

from dataclasses import replace
from typing import Any

import pytest

from postroom_core.documents import Pool, ReplyRule, Retry
from postroom_core.reply import Reply
from postroom_core.replyrule import Action, Class
from postroom_delivery import settle
from postroom_delivery.bounce import Author, Original
from postroom_delivery.outcome import Deferred, Delivered, Outcome, Released, from_reply, later, never
from postroom_delivery.spool.model import Claim, ClaimedMessage, MailOptions, Settlement, State

NOW = 1_790_000_000_000
HOUR = 3_600_000
POOL = Pool(name="default/main", retry=Retry(max_age=432_000, initial=60, maximum=14_400))


def claim(**values: Any) -> Claim:
    return replace(Claim(1, 1, "b@x.example", 0, "", ""), **values)


def message(one: Claim, **values: Any) -> ClaimedMessage:
    base = ClaimedMessage(
        id="01",
        tenant="default",
        domain="d.example",
        reverse_path="a@d.example",
        headers=b"Subject: x\r\n",
        body_size=0,
        eight_bit=False,
        received_at=NOW,
        expires_at=NOW + 120 * HOUR,
        ret="",
        envid="",
        traceparent="",
        body=b"",
        claims=(one,),
    )
    return replace(base, **values)


def decided(outcome: Outcome, one: Claim | None = None, *, now: int = NOW, pool: Pool = POOL, **values: Any) -> tuple[Settlement, settle.Verdict]:
    one = one or claim()
    context = settle.Context(now=now, pool=pool, own_name="mta", jitter=1.0, remote="mx[192.0.2.1]:25")
    verdict = settle.decide(message(one, **values), {one: outcome}, context)
    return verdict.settlements[0], verdict


def actions(verdict: settle.Verdict) -> list[tuple[str, str]]:
    return [(report.action, report.status) for report in verdict.reports]


UNKNOWN = from_reply(Reply(550, "5.1.1", "who"))
LATER = from_reply(Reply(451, "4.3.0", "hm"))
TAKEN = Delivered(Reply(250, "2.0.0", "ok"))


@pytest.mark.parametrize(
    ("notify", "failed", "delayed", "relayed"),
    [
        ("", True, False, False),
        ("NEVER", False, False, False),
        ("FAILURE", True, False, False),
        ("DELAY", False, True, False),
        ("SUCCESS", False, False, True),
        ("SUCCESS,FAILURE,DELAY", True, True, True),
    ],
)
def test_notify_decides_who_is_told_of_what(notify: str, failed: bool, delayed: bool, relayed: bool) -> None:
    """RFC 3461 section 4.1; without NOTIFY failures are told, and delays if the pool says so."""
    one = claim(notify=notify)
    assert actions(decided(UNKNOWN, one)[1]) == [("failed", "5.1.1")] * failed
    assert actions(decided(LATER, one, now=NOW + 5 * HOUR)[1]) == [("delayed", "4.3.0")] * delayed
    assert actions(decided(TAKEN, one)[1]) == [("relayed", "2.0.0")] * relayed


def test_a_peer_that_sends_notices_itself_gets_no_relayed_notice_from_us() -> None:
    assert decided(Delivered(Reply(250, "", "ok"), dsn=True), claim(notify="SUCCESS"))[1].reports == ()


def test_a_delay_is_told_once_and_only_after_its_time() -> None:
    pool = POOL.model_copy(update={"retry": POOL.retry.model_copy(update={"delay_notice": 7200.0})})
    assert actions(decided(LATER, now=NOW + 2 * HOUR - 1, pool=pool)[1]) == []
    settlement, verdict = decided(LATER, now=NOW + 2 * HOUR, pool=pool)
    assert (settlement.state, settlement.delay_told, actions(verdict)) == (State.SCHEDULED, True, [("delayed", "4.3.0")])
    assert verdict.reports[0].retry_until == NOW + 120 * HOUR
    settlement, verdict = decided(LATER, claim(delay_told=True), now=NOW + 3 * HOUR, pool=pool)
    assert (settlement.delay_told, verdict.reports) == (False, ())


def test_a_message_on_hold_is_not_late_before_its_time_has_come() -> None:
    options = MailOptions(hold_until=NOW + 24 * HOUR)
    assert actions(decided(LATER, claim(notify="DELAY"), now=NOW + 27 * HOUR, options=options)[1]) == []
    assert actions(decided(LATER, claim(notify="DELAY"), now=NOW + 28 * HOUR, options=options)[1]) == [("delayed", "4.3.0")]


def test_a_message_with_the_null_reverse_path_is_never_answered() -> None:
    settlement, verdict = decided(UNKNOWN, reverse_path="")
    assert (settlement.state, settlement.event and settlement.event.kind, verdict.reports) == (State.BOUNCED, "dead-letter", ())
    assert decided(LATER, claim(notify="DELAY"), now=NOW + 9 * HOUR, reverse_path="")[1].reports == ()


def test_the_end_of_the_lifetime_is_an_expiry_with_the_last_reply() -> None:
    settlement, verdict = decided(LATER, now=NOW + 120 * HOUR)
    assert (settlement.state, actions(verdict)) == (State.EXPIRED, [("failed", "4.4.7")])
    assert verdict.reports[0].diagnostic == "451 4.3.0 hm"


@pytest.mark.parametrize(("by_return", "expected"), [(True, [("failed", "5.4.7")]), (False, [("delayed", "4.3.0")])])
def test_deliver_by_returns_or_tells_when_its_time_has_passed(by_return: bool, expected: list[tuple[str, str]]) -> None:
    options = MailOptions(deliver_by=NOW + 30_000, deliver_by_return=by_return)
    settlement, verdict = decided(LATER, options=options)
    assert (settlement.due_at, verdict.reports) == (NOW + 30_000, ()), "there is an attempt at the given time"
    late = settle.too_late(message(claim(), options=options), NOW + 30_000)
    assert (late is not None) is by_return
    settlement, verdict = decided(late or LATER, now=NOW + 30_000, options=options)
    assert (settlement.state, actions(verdict)) == (State.EXPIRED if by_return else State.SCHEDULED, expected)
    assert settlement.event is not None and settlement.event.kind == ("expired" if by_return else "deferred")


def test_a_message_without_a_deadline_is_never_too_late() -> None:
    assert settle.too_late(message(claim()), NOW * 2) is None
    assert settle.too_late(message(claim(), options=MailOptions(deliver_by=NOW)), NOW) is None


def test_a_released_recipient_is_due_at_once_and_has_no_event() -> None:
    settlement, verdict = decided(Released())
    assert (settlement.state, settlement.event, settlement.due_at, settlement.attempted) == (State.SCHEDULED, None, NOW, False)
    assert verdict.reports == ()


def test_an_ambiguous_attempt_is_told_as_one() -> None:
    settlement, _ = decided(Deferred(later("4.4.2", "lost", Class.NETWORK).cause, ambiguous=True))
    assert settlement.event is not None and settlement.event.kind == "ambiguous"


def test_a_full_mailbox_waits_for_the_longest_interval() -> None:
    assert decided(from_reply(Reply(452, "4.2.2", "full")))[0].due_at == NOW + 4 * HOUR
    assert decided(LATER)[0].due_at == NOW + 60_000


@pytest.mark.parametrize(
    ("action", "reply", "state"),
    [
        (Action.RETRY, Reply(550, "5.1.1", "who"), State.SCHEDULED),
        (Action.RETRY_SLOWLY, Reply(550, "5.1.1", "who"), State.SCHEDULED),
        (Action.SUSPEND, Reply(550, "5.1.1", "who"), State.SCHEDULED),
        (Action.BOUNCE, Reply(450, "4.1.1", "who"), State.BOUNCED),
        (Action.SUPPRESS, Reply(450, "4.1.1", "who"), State.BOUNCED),
        (Action.ALERT, Reply(450, "4.1.1", "who"), State.SCHEDULED),
        (Action.ALERT, Reply(550, "5.1.1", "who"), State.BOUNCED),
        (Action.REDUCE_RATE, Reply(450, "4.1.1", "who"), State.SCHEDULED),
        (Action.REDUCE_RATE, Reply(550, "5.1.1", "who"), State.BOUNCED),
    ],
)
def test_a_rule_of_the_pool_decides_the_end(action: Action, reply: Reply, state: State) -> None:
    rule = ReplyRule(name="mine", enhanced_code="x.1.1", classification=Class.POLICY, action=action)
    settlement, verdict = decided(from_reply(reply), pool=POOL.model_copy(update={"reply_rules": (rule,)}))
    assert (settlement.state, settlement.event and settlement.event.classification) == (state, "policy")
    assert verdict.asks(action)
    assert [report.status[0] for report in verdict.reports] == ["5"] * (state is State.BOUNCED)


def test_a_greeting_that_refuses_stays_temporary_whatever_its_class() -> None:
    """Hop makes a refused greeting a deferral, because another host may take the message; the table's own 5xx actions do not apply."""
    settlement, _ = decided(Deferred(from_reply(Reply(554, "5.1.1", "no")).cause))
    assert settlement.state is State.SCHEDULED


def test_a_fault_found_on_our_side_keeps_its_class() -> None:
    settlement, verdict = decided(never("5.1.2", "no such domain", Class.DNS))
    assert settlement.event is not None and settlement.event.classification == "dns"
    assert not any(verdict.asks(action) for action in Action if action is not Action.BOUNCE)


def test_notices_go_the_way_of_the_message_with_the_null_reverse_path() -> None:
    context = settle.Context(now=NOW, pool=POOL, own_name="mta", jitter=0)
    one = claim()
    verdict = settle.decide(message(one), {one: UNKNOWN}, context)
    original = Original("01", "a@d.example", "", NOW, b"Subject: x\r\n")
    origin = settle.Origin(original, Author("mta", "d.example"), "default", "d.example", "d.example", sign=True, require_tls=True)
    (notice,) = settle.notices(origin, verdict.reports, context)
    assert (notice.message.reverse_path, [r.address for r in notice.message.recipients]) == ("", ["a@d.example"])
    assert (notice.message.sign, notice.message.options.require_tls, notice.message.options.smtputf8) == (True, True, False)
    assert settle.notices(replace(origin, original=replace(original, reverse_path="")), verdict.reports, context) == []
