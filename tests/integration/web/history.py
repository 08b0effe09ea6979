"""A day of mail in a spool: real accepts, claims and settlements, made by the spool's own interface at times of the last day."""

import asyncio
import math
import pathlib
import random
from dataclasses import dataclass

from postroom_core.ids import new_message_id
from postroom_core.reply import Reply
from postroom_delivery.classify import classify
from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import Claim, EventDetail, Limits, NewMessage, NewRecipient, Settlement, State
from postroom_delivery.spool.opening import open_spool

MINUTE, HOUR = 60_000, 3_600_000
OK = Reply(250, "2.0.0", "OK")
FULL = Reply(452, "4.2.2", "The recipient's inbox is out of storage space. Please direct the recipient to clear it.")
GREY = Reply(450, "4.2.0", "<kim@garden.example>: Recipient address rejected: Greylisted, please try again in 300 seconds")
SLOW = Reply(421, "4.7.28", "An unusual rate of mail originating from your IP address. Mail from it has been temporarily rate limited.")
LISTED = Reply(550, "5.7.1", "Service unavailable, Client host [192.0.2.1] blocked using Spamhaus. See https://check.spamhaus.org/")
NOBODY = Reply(550, "5.1.1", "The email account that you tried to reach does not exist. Please try double-checking the address.")
UNSIGNED = Reply(550, "5.7.26", "This mail has been blocked because the sender is unauthenticated.")
# (share, destination, reply): what a usual day is made of.
DAY = [(70, "mail.example", OK), (40, "post.example", OK), (20, "garden.example", OK), (8, "garden.example", GREY), (5, "mail.example", SLOW)]
DAY += [(2, "post.example", FULL), (2, "mail.example", NOBODY), (1, "corp.example", LISTED), (1, "mail.example", UNSIGNED)]
NAMES = ("ada", "kim", "noor", "lin", "sam", "eva")


@dataclass
class Day:
    """What was made; `story` is a message that failed twice and waits."""

    now: int
    story: str = ""
    held: str = ""


async def make(path: pathlib.Path, now: int) -> Day:
    """Twenty-four hours with a morning and an evening, the last hour by minutes, and some messages that still wait."""
    day, chance = Day(now), random.Random(5)
    async with open_spool(lambda: f"sqlite://{path}", "history", 0, lambda key: Limits(1000, None, 1000)) as spool:
        for back in range(23, 0, -1):
            hour = 14 + 10 * math.sin((now // HOUR - back) % 24 / 24 * 2 * math.pi - 2)
            await _burst(spool, now - back * HOUR - 10 * MINUTE, round(hour * 9), chance)
        for back in range(59, 0, -1):
            await _burst(spool, now - back * MINUTE, round(6 + 4 * math.sin(back / 9) + chance.random() * 2), chance)
        day.story = await _one(spool, now - 50 * MINUTE, "lin@post.example", [FULL, SLOW], due=now + 40 * MINUTE)
        day.held = await _one(spool, now - 30 * MINUTE, "sam@corp.example", [LISTED], due=now + 60 * MINUTE)
        for number in range(9):
            reply, domain = chance.choice([(GREY, "garden.example"), (SLOW, "mail.example"), (FULL, "post.example")])
            await _one(spool, now - number * 3 * MINUTE, f"{chance.choice(NAMES)}@{domain}", [reply], due=now + (20 + 7 * number) * MINUTE)
        while await spool.roll_up():
            pass
    return day


def _message(at: int, recipient: str, campaign: str) -> NewMessage:
    destination = recipient.rpartition("@")[2]
    return NewMessage(
        id=new_message_id(at),
        tenant="default",
        pool="default/main",
        domain="sink.example",
        credential="app",
        reverse_path="shop@sink.example",
        recipients=(NewRecipient(recipient, destination),),
        headers=b"From: shop@sink.example\r\nSubject: Your order\r\n",
        body_size=4,
        eight_bit=False,
        received_at=at,
        expires_at=at + 120 * HOUR,
        client_address="10.1.2.3",
        campaign=campaign,
    )


async def _burst(spool: Spool, at: int, count: int, chance: random.Random) -> None:
    outcomes = chance.choices(DAY, [share for share, _, _ in DAY], k=count)
    wanted = {}
    for _, domain, reply in outcomes:
        message = _message(at, f"{chance.choice(NAMES)}@{domain}", chance.choice(["orders", "orders", "newsletter"]))
        wanted[message.id] = (message, reply)
    await asyncio.gather(*(spool.accept(message, (0, b"body")) for message, _ in wanted.values()))
    await _settle(spool, at, {name: reply for name, (_, reply) in wanted.items()}, chance, final=True)


async def _one(spool: Spool, at: int, recipient: str, replies: list[Reply], due: int) -> str:
    """A message that was deferred by each reply and waits until `due`."""
    message = _message(at, recipient, "orders")
    await spool.accept(message, (0, b"body"))
    for number, reply in enumerate(replies):
        last = number == len(replies) - 1
        await _settle(spool, at + number * 5 * MINUTE, {message.id: reply}, random.Random(1), due=due if last else at + (number + 1) * 5 * MINUTE)
    return message.id


async def _settle(spool: Spool, at: int, replies: dict[str, Reply], chance: random.Random, due: int = 0, *, final: bool = False) -> None:
    left = len(replies)
    while left:
        batches, _ = await spool.claim(at, 50, ())
        assert batches, "a claim finds what was accepted"
        claims = [(claim, replies[message.id]) for batch in batches for message in batch.messages for claim in message.claims]
        times = [at + int(200 + 3000 * chance.random() ** 3) for _ in claims]
        settlements = [_settlement(claim, reply, due, final=final) for claim, reply in claims]
        await asyncio.gather(*(spool.settle(then, [one], []) for then, one in zip(times, settlements, strict=True)))
        left -= len(claims)
        for batch in batches:
            await spool.release_slot(at, batch, 0)


def _settlement(claim: Claim, reply: Reply, due: int, *, final: bool) -> Settlement:
    domain = claim.address.rpartition("@")[2]
    delivered = reply.kind == 2
    kind = "delivered" if delivered else "deferred" if reply.kind == 4 or not final else "bounced"
    state = State.DELIVERED if delivered else State.BOUNCED if kind == "bounced" else State.SCHEDULED
    if final and kind == "deferred":
        state = State.EXPIRED  # the day's own deferrals must not stay in the queue
    detail = EventDetail(
        kind, reply, classification=classify(reply).value, remote=f"mx1.{domain}[192.0.2.25]:25", tls="TLSv1.3 TLS_AES_256_GCM_SHA384"
    )
    return Settlement(claim, state, detail, due)
