"""The suppression list on the running delivery: who gets on it, what it stops, what it leaves alone."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

from grpc import aio

from postroom.v1 import spool_pb2, suppression_pb2, suppression_pb2_grpc
from postroom_core import returnpath, rpc
from postroom_core.documents import SenderDomain
from postroom_core.suppression import Filter, keys
from postroom_core.testing.faults import Rule, script

from integration.delivery.harness import Running, delivery
from unit.delivery.test_reports import ARF, ID


def stub(channel: aio.Channel) -> suppression_pb2_grpc.SuppressionAsyncStub:
    made: suppression_pb2_grpc.SuppressionAsyncStub = suppression_pb2_grpc.SuppressionStub(channel)
    return made


def test_an_unknown_mailbox_is_suppressed_for_its_tenant_and_its_next_message_ends_without_an_attempt(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with (
            delivery(tmp_path, script=script([Rule("RCPT", b"550 5.1.1 no such user", argument="gone@", times=1)])) as running,
            rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel,
        ):
            await running.until(await running.enqueue("Gone@x.example"), "bounced")
            (entry,) = (await stub(channel).List(suppression_pb2.SuppressionListRequest())).entries
            assert (entry.scope, entry.owner, entry.address, entry.reason) == ("tenant", "default", "gone@x.example", "bounce")
            assert "550 5.1.1 no such user" in entry.evidence
            assert 89 < (entry.expires_at_ms - entry.created_at_ms) / 86_400_000 < 91
            found = await stub(channel).Lookup(suppression_pb2.SuppressionLookupRequest(tenant="default", domain="d", address="gone@x.example"))
            assert "no such user" in found.text
            await until_filtered(channel)
            events = await running.until(await running.enqueue("gone@x.example", "other@x.example"), "suppressed")
            assert "suppression list" in events[-1].text
            assert (await sent(running, 1)) == ["other@x.example"]
            assert (await other_tenant(running)) == "delivered"

    async def until_filtered(channel: aio.Channel) -> None:
        wanted = keys("default", "d.example", "gone@x.example")[1]
        while wanted not in Filter((await stub(channel).Filter(suppression_pb2.SuppressionFilterRequest())).bits):
            await asyncio.sleep(0.05)

    async def sent(running: Running, count: int) -> list[str]:
        while len(found := [r for m in running.sink.messages if m.reverse_path for r in m.recipients]) < count:
            await asyncio.sleep(0.01)
        return found

    async def other_tenant(running: Running) -> str:
        events = await running.until(await running.enqueue("gone@x.example", tenant="other"), "delivered", "bounced")
        return str(events[-1].kind)

    asyncio.run(scenario())


def test_people_add_and_remove_entries_and_the_filter_tells_nothing_new_to_who_has_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path), rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel:
            entry = suppression_pb2.SuppressionEntry(scope="domain", owner="d.example", address="B@x.example", reason="asked")
            change = suppression_pb2.SuppressionChange(entries=[entry])
            first = await stub(channel).Filter(suppression_pb2.SuppressionFilterRequest())
            assert (await stub(channel).Add(change)).changed == 1
            second = await stub(channel).Filter(suppression_pb2.SuppressionFilterRequest(version=first.version))
            assert keys("", "d.example", "b@x.example")[2] in Filter(second.bits)
            assert not (await stub(channel).Filter(suppression_pb2.SuppressionFilterRequest(version=second.version))).bits
            assert (await stub(channel).Add(change)).changed == 0
            assert (await stub(channel).Remove(change)).changed == 1
            assert not (await stub(channel).Lookup(suppression_pb2.SuppressionLookupRequest(domain="d.example", address="b@x.example"))).text

    asyncio.run(scenario())


def test_an_entry_without_sense_is_refused_with_a_sentence(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path), rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel:
            faults: list[dict[str, Any]] = [{"scope": "tenant"}, {"scope": "global", "owner": "x"}, {"scope": "else", "owner": "x"}]
            for values in faults:
                entry = suppression_pb2.SuppressionEntry(address="b@x.example", **values)
                try:
                    await stub(channel).Add(suppression_pb2.SuppressionChange(entries=[entry]))
                except aio.AioRpcError as error:
                    assert "scope" in (error.details() or "")
                else:
                    raise AssertionError(values)

    asyncio.run(scenario())


def test_a_complaint_about_a_delivered_message_is_told_and_keeps_the_domain_away(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path) as running, rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel:
            message_id = await running.enqueue("b@x.example")
            await running.until(message_id, "delivered")
            report = ARF.replace(ID, message_id)
            told = await stub(channel).Report(suppression_pb2.SuppressionReport(content=report.encode()))
            assert (told.kind, told.message_id, [*told.addresses], told.suppressed) == ("complained", message_id, ["b@x.example"], 1)
            await running.until(message_id, "complained")
            found = await stub(channel).Lookup(suppression_pb2.SuppressionLookupRequest(tenant="t", domain="d.example", address="b@x.example"))
            assert "complaint" in found.text
            unknown = await stub(channel).Report(suppression_pb2.SuppressionReport(content=ARF.encode()))
            assert (unknown.kind, unknown.text) == ("", "the report is about no message that is known here")

    asyncio.run(scenario())


def test_mail_of_a_domain_with_a_return_path_leaves_with_it_and_our_own_notices_do_not(tmp_path: pathlib.Path) -> None:
    ours = SenderDomain(name="d.example", tenant="default", signed=False, return_path="reports@bounce.d.example")

    async def scenario() -> None:
        refused = Rule("RCPT", b"552 5.2.2 full", argument="full@")
        async with delivery(tmp_path, script=script([refused]), domains=[ours]) as running:
            await running.enqueue("b@x.example", "full@x.example")
            messages = await running.sink.wait_for(2)
            asked = spool_pb2.Recipient(address="c@x.example", notify=["SUCCESS", "FAILURE"])
            await running.until(await running.enqueue(recipients=[asked]), "delivered")
            assert [message.reverse_path for message in running.sink.messages if "c@x.example" in message.recipients] == ["a@d.example"]
            messages = [message for message in running.sink.messages if message.recipients != ("c@x.example",)][:2]
            assert sorted(message.recipients for message in messages) == [("a@d.example",), ("b@x.example",)]
            found = {message.recipients[0]: returnpath.parse(message.reverse_path) for message in messages}
            path = found["b@x.example"]
            assert found["a@d.example"] is None
            assert path is not None
            assert path.base == "reports@bounce.d.example"

    asyncio.run(scenario())


def test_a_bounce_without_any_form_suppresses_the_recipient_whose_return_path_it_came_to_and_a_forged_one_nobody(tmp_path: pathlib.Path) -> None:
    ours = SenderDomain(name="d.example", tenant="default", signed=False, return_path="reports@bounce.d.example")
    bounce = b"Subject: failure notice\r\n\r\nSorry: 550 5.1.1 no such user\r\n"

    async def scenario() -> None:
        async with delivery(tmp_path, domains=[ours]) as running, rpc.connect(f"unix:{tmp_path}/delivery.sock") as channel:
            message_id = await running.enqueue("b@x.example", "c@x.example", "d@x.example")
            messages = await running.sink.wait_for(3)
            assert sorted(message.recipients for message in messages) == [("b@x.example",), ("c@x.example",), ("d@x.example",)]
            assert running.sink.sessions == 1  # one connection, three transactions
            await running.until(message_id, "delivered")
            path = next(message.reverse_path for message in messages if message.recipients == ("c@x.example",))

            async def report(content: bytes, return_path: str) -> suppression_pb2.SuppressionReported:
                request = suppression_pb2.SuppressionReport(content=content, return_path=return_path)
                found: suppression_pb2.SuppressionReported = await stub(channel).Report(request)
                return found

            async def proven(address: str) -> bool:
                return bool((await stub(channel).CheckReturnPath(suppression_pb2.ReturnPathRequest(address=address))).proven)

            forged = path.replace(path[-25:-21], "aaaa") if path[-25:-21] != "aaaa" else path.replace(path[-25:-21], "bbbb")
            assert [await proven(path.title()), await proven(forged)] == [True, False]
            assert (await report(bounce, forged)).text == "the report is about no message that is known here"
            told = await report(bounce, path)
            assert (told.kind, told.message_id, [*told.addresses], told.suppressed) == ("bounced-later", message_id, ["c@x.example"], 1)
            # an id alone, as any host on the way knows it, tells a story and suppresses nobody; a quoted return path does
            arf = ARF.replace(ID, message_id).replace("B@x.example", "b@x.example")
            told = await report(arf.encode(), "reports@bounce.d.example")
            assert (told.kind, [*told.addresses], told.suppressed) == ("complained", ["b@x.example"], 0)
            told = await report(arf.replace("<a@d.example>", f"<{path}>", 1).encode(), "reports@bounce.d.example")
            assert (told.kind, [*told.addresses], told.suppressed) == ("complained", ["c@x.example"], 1)

    asyncio.run(scenario())
