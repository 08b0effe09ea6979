"""Delivery status notifications on the wire: who is told what, in whose name, signed or not at all, and never twice."""

import asyncio
import email
import pathlib
from typing import Any

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from postroom.v1 import queue_pb2, signer_pb2_grpc, spool_pb2
from postroom_core import rpc
from postroom_core.documents import KeySet, Pool, Retry, SenderDomain, SigningKey
from postroom_core.snapshot import Snapshot
from postroom_core.testing.faults import Rule, script
from postroom_signer.keys import Keyring
from postroom_signer.servicer import SignerServicer

from integration.delivery.harness import FAST, delivery

OURS = SenderDomain(name="d.example", tenant="default", signed=True)


def groups(content: bytes) -> list[Any]:
    """The groups of fields of a DSN's status part."""
    parsed: Any = email.message_from_bytes(content)
    return list(parsed.get_payload()[1].get_payload())


def key() -> tuple[KeySet, bytes]:
    """A key set and the TXT record that belongs to it."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    record = "v=DKIM1; k=rsa; p=" + "".join(public.splitlines()[1:-1])
    keys = KeySet(name="d.example", tenant="default", keys=(SigningKey(selector="s", algorithm="RSA2048", private_key=pem),))
    return keys, record.encode()


def test_a_notice_of_a_signed_domain_is_signed_and_waits_while_the_signer_is_away(tmp_path: pathlib.Path) -> None:
    keys, record = key()
    target = f"unix:{tmp_path}/signer.sock"
    keyring = Keyring()

    async def scenario() -> None:
        refused = Rule("RCPT", b"550 5.1.1 who", argument="gone@")
        async with delivery(tmp_path, script=script([refused]), signer_target=target, domains=[OURS]) as running:
            message_id = await running.enqueue("gone@x.example")
            await running.until(message_id, "bounced")
            notice_id = await waits(running)
            assert running.sink.messages == [], "nothing leaves unsigned"
            keyring.replace(Snapshot("1", [keys]))
            async with rpc.serve(
                target, lambda server: signer_pb2_grpc.add_SignerServicer_to_server(SignerServicer(keyring), server), grace_seconds=1
            ):
                await running.until(notice_id, "delivered")
            (notice,) = running.sink.messages
            assert b"From: Mail Delivery System <mailer-daemon@d.example>" in notice.content
            assert notice.reverse_path == ""
            assert dkim.verify(notice.content, dnsfunc=lambda *_args, **_kw: record)

    async def waits(running: Any) -> str:
        async for event in running.queue.Events(queue_pb2.EventsRequest(follow=True), timeout=20):
            if event.kind == "deferred":
                assert "could not be signed" in event.text
                return str(event.message_id)
        raise AssertionError

    asyncio.run(scenario())


def test_without_a_signer_a_notice_carries_the_name_of_this_host(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path, script=script([Rule("RCPT", b"550 5.1.1 who", argument="gone@")]), domains=[OURS]) as running:
            await running.enqueue("gone@x.example")
            (notice,) = await running.sink.wait_for(1)
            assert b"<mailer-daemon@mta.d.example>" in notice.content

    asyncio.run(scenario())


def test_a_delay_is_told_once_and_the_delivery_goes_on(tmp_path: pathlib.Path) -> None:
    pool = FAST.model_copy(update={"retry": Retry(max_age=30, initial=0.1, maximum=0.2, delay_notice=0.3)})

    async def scenario() -> None:
        async with delivery(tmp_path, pool, script=script([Rule("RCPT", b"451 4.3.0 later", argument="b@", times=6)])) as running:
            message_id = await running.enqueue("b@x.example")
            events = await running.until(message_id, "delivered", "bounced", "expired")
            assert [event.kind for event in events] == ["accepted", *["deferred"] * 6, "delivered"]
            notices = [message for message in running.sink.messages if message.reverse_path == ""]
            assert len(notices) == 1
            general, recipient = groups(notices[0].content)
            assert (recipient["Action"], recipient["Status"][0]) == ("delayed", "4")
            assert recipient["Will-Retry-Until"] and recipient["Last-Attempt-Date"] and general["Arrival-Date"]

    asyncio.run(scenario())


def test_success_is_told_as_relayed_only_where_the_next_host_cannot_tell_it(tmp_path: pathlib.Path) -> None:
    wish = spool_pb2.Recipient(address="b@x.example", notify=["SUCCESS"], orcpt="rfc822;B+2Bc@x.example")

    async def scenario() -> None:
        for name, extensions, told in (("without", ("8BITMIME",), 1), ("with", ("8BITMIME", "DSN"), 0)):
            folder = tmp_path / name
            folder.mkdir()
            async with delivery(folder, extensions=extensions) as running:
                await running.until(await running.enqueue(recipients=[wish]), "delivered")
                messages = await running.sink.wait_for(1 + told)
                notices = [message for message in messages if message.reverse_path == ""]
                assert [groups(notice.content)[1]["Action"] for notice in notices] == ["relayed"] * told
                assert [groups(notice.content)[1]["Original-Recipient"] for notice in notices] == ["rfc822;B+c@x.example"] * told

    asyncio.run(scenario())


def test_ret_full_returns_the_message_and_requiretls_never_does(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path, script=script([Rule("RCPT", b"550 5.1.1 who", argument="gone@")])) as running:
            await running.enqueue("gone@x.example", ret="FULL", body=b"the content\r\n")
            (notice,) = await running.sink.wait_for(1)
            assert b"the content" in notice.content

    asyncio.run(scenario())


def test_deliver_by_in_return_mode_ends_at_its_time(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with delivery(tmp_path, script=script([Rule("RCPT", b"451 4.3.0 later", argument="b@")])) as running:
            options = spool_pb2.MailOptions(deliver_by_ms=running.now() + 600, deliver_by_return=True)
            events = await running.until(await running.enqueue("b@x.example", options=options), "delivered", "expired")
            assert events[-1].kind == "expired"
            (notice,) = await running.sink.wait_for(1)
            assert (groups(notice.content)[1]["Action"], groups(notice.content)[1]["Status"]) == ("failed", "5.4.7")

    asyncio.run(scenario())


def test_a_bounce_of_a_bounce_can_be_seen(tmp_path: pathlib.Path) -> None:
    pool = Pool(name="default/main", retry=Retry(max_age=30, initial=0.1, maximum=0.2))

    async def scenario() -> None:
        async with delivery(tmp_path, pool, script=script([Rule("RCPT", b"550 5.1.1 who")])) as running:
            message_id = await running.enqueue("gone@x.example")
            await running.until(message_id, "bounced")
            async for event in running.queue.Events(queue_pb2.EventsRequest(follow=True), timeout=20):
                if event.kind == "dead-letter":
                    break
            (letter,) = (await running.queue.DeadLetters(queue_pb2.DeadLettersRequest())).letters
            assert (letter.message_id, letter.reason) == (event.message_id, "550 5.1.1 who")
            assert b"Subject: Undelivered mail returned to sender" in letter.header_block

    asyncio.run(scenario())
