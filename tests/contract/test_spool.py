"""The contract of a spool engine, held by both."""

import asyncio
import contextlib
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from postroom_delivery.spool.interface import LEASE_MS, Spool
from postroom_delivery.spool.model import (
    Allowance,
    Batch,
    Claim,
    EventDetail,
    Key,
    Limits,
    LostLease,
    MailOptions,
    NewMessage,
    NewRecipient,
    Settlement,
    State,
    Suppression,
    SuppressionFilter,
)
from postroom_delivery.spool.opening import open_spool
from postroom_delivery.spool.postgres import open_postgres

WIDE = Limits(2, None, 10)
KEY = Key("p", "x.example")
Opener = Callable[[pathlib.Path, Limits], contextlib.AbstractAsyncContextManager[Spool]]


def _sqlite(folder: pathlib.Path, limits: Limits) -> contextlib.AbstractAsyncContextManager[Spool]:
    return open_spool(lambda: f"sqlite://{folder}/spool.sqlite3", "me", 0, lambda key: limits)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Opener:
    """Both engines under the caller's clock, so that time is the test's."""
    if request.param == "sqlite":
        return _sqlite
    url = request.getfixturevalue("postgres_server").database()
    return lambda _, limits: open_postgres(lambda: url, "me", lambda key: limits, caller_clock=True)


def message(name: str, tenant: str = "t", **values: Any) -> NewMessage:
    fields: dict[str, Any] = {
        **{"id": name, "tenant": tenant, "pool": "p", "domain": "d.example", "credential": "u", "reverse_path": "a@d.example"},
        **{"recipients": (NewRecipient("b@x.example", "x.example"),), "headers": b"From: a\r\n", "body_size": 4, "eight_bit": False},
        **{"received_at": 0, "expires_at": 1_000_000},
    }
    return NewMessage(**(fields | values))


def run(engine: Opener, folder: pathlib.Path, scenario: Callable[[Spool], Awaitable[None]], limits: Limits = WIDE) -> None:
    async def scenario_in_spool() -> None:
        async with engine(folder, limits) as spool:
            await scenario(spool)

    asyncio.run(scenario_in_spool())


async def claim_one(spool: Spool, now: int = 0) -> Batch:
    batches, _ = await spool.claim(now, 1, ())
    assert len(batches) == 1
    return batches[0]


def delivered(batch: Batch) -> list[Settlement]:
    return [Settlement(c, State.DELIVERED, EventDetail("delivered", text="ok")) for m in batch.messages for c in m.claims]


def test_what_a_notice_needs_travels_with_it(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1", sign=True, options=MailOptions(smtputf8=True, require_tls=True, deliver_by=7)), (0, b"body"))
        claimed = (await claim_one(spool)).messages[0]
        assert (claimed.sign, claimed.options) == (True, MailOptions(smtputf8=True, require_tls=True, deliver_by=7))
        shown = await spool.show("m1")
        assert shown is not None and shown.options == claimed.options

    run(engine, tmp_path, scenario)


def test_a_delay_that_was_told_stays_told(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        for attempt, told in enumerate((False, True, False)):
            batch = await claim_one(spool, now=attempt)
            (claim,) = batch.messages[0].claims
            assert claim.delay_told is (attempt > 1)
            later = Settlement(claim, State.SCHEDULED, EventDetail("deferred", text="later"), due_at=attempt + 1, delay_told=told)
            await spool.settle(attempt, [later], ())
            await spool.release_slot(attempt, batch, 0)
        assert (await claim_one(spool, now=9)).messages[0].claims[0].delay_told

    run(engine, tmp_path, scenario)


def test_dead_letters_are_kept_with_their_headers_and_paged_from_the_newest(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for number in range(3):
            await spool.accept(message(f"m{number}", reverse_path=""), (0, b"body"))
            batch = await claim_one(spool)
            dead = [Settlement(c, State.BOUNCED, EventDetail("dead-letter", text="no")) for c in batch.messages[0].claims]
            await spool.settle(100 + number // 2, dead, ())
            await spool.release_slot(0, batch, 0)
        newest = await spool.dead_letters(None, 2)
        assert [(letter.message, letter.at, letter.reason, letter.headers) for letter in newest] == [
            ("m2", 101, "no", b"From: a\r\n"),
            ("m1", 100, "no", b"From: a\r\n"),
        ]
        assert [letter.message for letter in await spool.dead_letters(newest[-1], 2)] == ["m0"]

    run(engine, tmp_path, scenario)


def test_a_second_accept_of_the_same_id_changes_nothing(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for _ in range(2):
            assert await spool.accept(message("m1"), (0, b"body")) is None
        assert (await spool.stats(0)).recipients == {"scheduled": 1}

    run(engine, tmp_path, scenario)


def test_staged_chunks_are_the_body_in_order_and_a_lost_one_refuses_the_message(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for name, size in (("m1", 4), ("m2", 5)):
            await spool.stage(name, 0, b"bo")
            refusal = await spool.accept(message(name, body_size=size), (1, b"dy"))
            assert (refusal is None) == (size == 4)
        assert b"".join([chunk async for chunk in spool.body("m1")]) == b"body"
        assert await spool.show("m2") is None

    run(engine, tmp_path, scenario)


def test_discard_forgets_staged_chunks_and_leaves_an_accepted_message_alone(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        await spool.stage("m2", 0, b"x")
        for name in ("m1", "m2"):
            await spool.discard(name)
        assert [chunk async for chunk in spool.body("m1")] == [b"body"]
        assert [chunk async for chunk in spool.body("m2")] == []

    run(engine, tmp_path, scenario)


def test_a_lost_lease_can_neither_doubt_nor_settle_and_an_attempt_in_doubt_is_counted(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        batch = await claim_one(spool)
        await spool.doubt(batch.messages[0].claims)
        assert await spool.recover(LEASE_MS + 1) == 1
        with pytest.raises(LostLease):
            await spool.doubt(batch.messages[0].claims)
        with pytest.raises(LostLease):
            await spool.settle(1, delivered(batch), ())
        assert (await spool.stats(0)).ambiguous == 1
        again = await claim_one(spool, LEASE_MS + 1)
        await spool.settle(LEASE_MS + 2, delivered(again), ())
        assert (await spool.stats(0)).recipients == {"delivered": 1}

    run(engine, tmp_path, scenario)


def test_tenants_take_turns(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for number in range(6):
            await spool.accept(message(f"m{number}", "noisy"), (0, b"body"))
        await spool.accept(message("q", "quiet"), (0, b"body"))
        tenants = [(await claim_one(spool, now)).messages[0].tenant for now in (1, 2)]
        assert set(tenants) == {"noisy", "quiet"}

    run(engine, tmp_path, scenario, Limits(5, None, 1))


def test_a_tenants_higher_priorities_go_first_and_other_tenants_keep_their_turn(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for number, priority in enumerate((-3, 0, 9, 4)):
            await spool.accept(message(f"m{number}", options=MailOptions(priority=priority)), (0, b"body"))
        await spool.accept(message("later", options=MailOptions(priority=9, hold_until=50)), (0, b"body"))
        await spool.accept(message("other", "quiet"), (0, b"body"))
        order = [(await claim_one(spool, now)).messages[0].id for now in range(1, 6)]
        assert [name for name in order if name != "other"] == ["m2", "m3", "m1", "m0"]
        assert "other" in order[:2]
        assert (await claim_one(spool, 50)).messages[0].id == "later"

    run(engine, tmp_path, scenario, Limits(9, None, 1))


def test_an_allowance_refuses_the_message_beyond_it_and_tells_the_seconds_to_wait(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        allowances = (Allowance("credential:d.example/u", 60, 1),)
        assert await spool.accept(message("m1", allowances=allowances), (0, b"body")) is None
        await spool.stage("m2", 0, b"bo")
        refusal = await spool.accept(message("m2", allowances=allowances, received_at=20_000), (1, b"dy"))
        assert str(refusal) == "452 4.7.1 The limit of 1 messages per 60 s of this credential is reached, try again in 40 s"
        assert [chunk async for chunk in spool.body("m2")] == []
        assert await spool.accept(message("m3", allowances=allowances, received_at=60_000), (0, b"body")) is None

    run(engine, tmp_path, scenario)


def test_a_message_counts_its_amount_against_every_allowance_or_against_none(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        def allowances(recipients: int) -> tuple[Allowance, ...]:
            return Allowance("domain:d", 3600, 100), Allowance("domain:d:recipients", 3600, 10, recipients, "recipients")

        assert await spool.accept(message("m1", allowances=allowances(8)), (0, b"body")) is None
        refusal = await spool.accept(message("m2", allowances=allowances(3)), (0, b"body"))
        assert str(refusal) == "452 4.7.1 The limit of 10 recipients per hour of this domain is reached, try again in 3600 s"
        assert await spool.accept(message("m3", allowances=allowances(2)), (0, b"body")) is None, "the refused message counted nothing"
        never = await spool.accept(message("m4", allowances=allowances(11)), (0, b"body"))
        assert str(never).startswith("554 "), "what can never fit is not asked to come again"

    run(engine, tmp_path, scenario)


def test_a_message_that_did_not_arrive_whole_counts_nothing(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        allowances = (Allowance("domain:d", 3600, 1),)
        await spool.stage("m1", 0, b"bo")
        assert str(await spool.accept(message("m1", allowances=allowances, body_size=9), (1, b"dy"))).startswith("451 ")
        assert await spool.accept(message("m2", allowances=allowances), (0, b"body")) is None

    run(engine, tmp_path, scenario)


def test_accepts_at_the_same_time_never_pass_a_limit(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        allowances = (Allowance("credential:c", 3600, 7), Allowance("domain:d", 3600, 50))
        accepts = (spool.accept(message(f"m{number}", allowances=allowances), (0, b"body")) for number in range(40))
        assert sum(refusal is None for refusal in await asyncio.gather(*accepts)) == 7

    run(engine, tmp_path, scenario)


def test_held_recipients_are_claimed_only_after_their_release(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        row = await spool.show("m1")
        assert row is not None
        assert await spool.reschedule(0, "hold", row.recipients) == 1
        assert (await spool.claim(1, 1, ()))[0] == []
        assert await spool.reschedule(1, "release", row.recipients) == 1
        await claim_one(spool, 1)

    run(engine, tmp_path, scenario)


def test_a_suspended_destination_is_left_alone_until_it_is_resumed(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        await spool.suspend(0, KEY, True)
        assert (await spool.claim(1, 1, ()))[0] == []
        await spool.suspend(1, KEY, False)
        await claim_one(spool, 1)

    run(engine, tmp_path, scenario)


def test_only_what_may_make_work_due_wakes_the_claiming_loop(engine: Opener, tmp_path: pathlib.Path) -> None:
    """A claim that woke the loop that claims made an idle service spin; a delivery that did made a hundred processes claim for each."""

    async def scenario(spool: Spool) -> None:
        async def woken(work: Awaitable[Any]) -> bool:
            spool.changed.clear()
            await work
            return spool.changed.is_set()

        assert not await woken(spool.claim(0, 1, ()))
        assert not await woken(spool.stage("m0", 0, b"chunk"))
        assert await woken(spool.accept(message("m1"), (0, b"body")))
        batch = await claim_one(spool)
        assert not await woken(spool.renew(0))
        assert not await woken(spool.doubt([claim for m in batch.messages for claim in m.claims]))
        assert not await woken(spool.settle(0, delivered(batch), ()))
        assert await woken(spool.release_slot(0, batch, 0))
        await spool.accept(message("m2"), (0, b"body"))
        batch = await claim_one(spool)
        (claim,) = batch.messages[0].claims
        assert await woken(spool.settle(0, [Settlement(claim, State.SCHEDULED, EventDetail("deferred", text="later"), due_at=1)], ()))

    run(engine, tmp_path, scenario)


def entry(address: str = "b@x.example", scope: str = "tenant", owner: str = "t", *, expires_at: int = 0, reason: str = "bounce") -> Suppression:
    return Suppression(scope, owner, address, reason, "550", 5, expires_at)


def test_a_suppressed_address_is_found_by_its_scopes_until_it_expires(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        assert await spool.suppress([entry(expires_at=100), entry("g@x.example", "global", ""), entry("d@x.example", "domain", "d.example")]) == 3
        addresses = ["b@x.example", "g@x.example", "d@x.example", "free@x.example"]
        assert set(await spool.suppressed(50, "t", "d.example", addresses)) == set(addresses[:3])
        assert set(await spool.suppressed(50, "other", "other.example", addresses)) == {"g@x.example"}
        assert set(await spool.suppressed(100, "t", "other.example", addresses)) == {"g@x.example"}
        found = (await spool.suppressed(50, "t", "", ["b@x.example"]))["b@x.example"]
        assert (found.reason, found.evidence, found.created_at, found.expires_at) == ("bounce", "550", 5, 100)

    run(engine, tmp_path, scenario)


def test_of_two_entries_for_one_address_the_one_that_lasts_longer_stays(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        assert await spool.suppress([entry(expires_at=100)]) == 1
        assert await spool.suppress([entry(expires_at=90, reason="shorter")]) == 0
        assert await spool.suppress([entry(expires_at=0, reason="for ever")]) == 1
        assert await spool.suppress([entry(expires_at=200, reason="shorter")]) == 0
        (only,) = await spool.suppressions(SuppressionFilter())
        assert (only.reason, only.expires_at) == ("for ever", 0)

    run(engine, tmp_path, scenario)


def test_a_change_gives_an_entry_a_new_number_and_pages_go_by_numbers(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.suppress([entry(f"b{number}@x.example", expires_at=10) for number in range(3)])
        first = await spool.suppressions(SuppressionFilter(limit=2))
        assert [one.address for one in first] == ["b0@x.example", "b1@x.example"]
        await spool.suppress([entry("b0@x.example", expires_at=20)])
        rest = await spool.suppressions(SuppressionFilter(after=first[-1].number))
        assert [one.address for one in rest] == ["b2@x.example", "b0@x.example"]
        assert [one.address for one in await spool.suppressions(SuppressionFilter(address="b2@x.example"))] == ["b2@x.example"]
        assert await spool.suppressions(SuppressionFilter(scope="global")) == []

    run(engine, tmp_path, scenario)


def test_removed_and_expired_entries_are_gone(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.suppress([entry("a@x.example"), entry("b@x.example", expires_at=10), entry("c@x.example", expires_at=1000)])
        assert await spool.unsuppress([entry("a@x.example"), entry("never@x.example")]) == 1
        await spool.sweep(500)
        assert [one.address for one in await spool.suppressions(SuppressionFilter())] == ["c@x.example"]

    run(engine, tmp_path, scenario)


def test_an_entry_is_made_in_the_transaction_that_settles_the_bounce(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        batch = await claim_one(spool)
        (claim,) = batch.messages[0].claims
        lost = Claim(claim.recipient, claim.fence + 7, claim.address, 0, "", "")
        bounced = EventDetail("bounced", text="no")
        with pytest.raises(LostLease):
            await spool.settle(0, [Settlement(lost, State.BOUNCED, bounced, suppress=entry())], ())
        assert await spool.suppressions(SuppressionFilter()) == []
        await spool.settle(0, [Settlement(claim, State.BOUNCED, bounced, suppress=entry())], ())
        assert len(await spool.suppressions(SuppressionFilter())) == 1

    run(engine, tmp_path, scenario)


def test_what_is_told_later_joins_the_story_of_the_message_and_the_list(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m1"), (0, b"body"))
        assert await spool.tell(7, "m1", "b@x.example", EventDetail("complained", text="abuse"), [entry()]) == 1
        last = (await spool.events("m1", 0, 10))[-1]
        assert (last.kind, last.recipient, last.text, last.at) == ("complained", "b@x.example", "abuse", 7)
        assert len(await spool.suppressions(SuppressionFilter())) == 1

    run(engine, tmp_path, scenario)


def test_what_is_remembered_ends_at_its_time_and_outlives_a_restart(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def first(spool: Spool) -> None:
        assert await spool.recall(0, "kind", "name") is None
        await spool.remember(0, "kind", "name", "one", 100)
        await spool.remember(0, "kind", "name", "two", 200)
        await spool.remember(0, "else", "name", "other", 1000)

    async def second(spool: Spool) -> None:
        assert await spool.recall(199, "kind", "name") == "two"
        assert await spool.recall(200, "kind", "name") is None
        await spool.sweep(200)
        assert await spool.recall(0, "kind", "name") is None
        assert await spool.recall(0, "else", "name") == "other"

    run(engine, tmp_path, first)
    run(engine, tmp_path, second)


def test_what_processes_agree_on_stands_until_its_time_is_over(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        assert await asyncio.gather(*(spool.agree(0, "key", "1", f"v{number}", 100 + number) for number in range(3))) == ["v0"] * 3
        assert await spool.recall(99, "key", "1") == "v0"
        assert await spool.recall(100, "key", "1") is None
        assert await spool.agree(100, "key", "1", "v3", 200) == "v3"
        assert await spool.agree(199, "key", "1", "v4", 300) == "v3"

    run(engine, tmp_path, scenario)
