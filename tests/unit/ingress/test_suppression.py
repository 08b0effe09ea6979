"""The suppression list at RCPT: no call for ordinary recipients, the reason for suppressed ones, 451 when nobody can say."""

import asyncio
from collections.abc import Awaitable, Callable

from postroom_core.errors import Unavailable
from postroom_core.suppression import Filter, keys
from postroom_core.testing.clock import FakeClock
from postroom_ingress.suppression import AWAY, SuppressionList


class Delivery:
    """A delivery's list in memory that counts questions."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.away = False
        self.fetches = 0
        self.lookups = 0

    async def filter(self, version: str) -> tuple[str, bytes]:
        self.fetches += 1
        if self.away:
            raise Unavailable("away")
        newest = str(len(self.entries))
        made = Filter.sized(10)
        for address in self.entries:
            made.add(keys("t", "d.example", address)[1])
        return newest, b"" if newest == version else bytes(made)

    async def lookup(self, tenant: str, domain: str, address: str) -> str:
        self.lookups += 1
        if self.away:
            raise Unavailable("away")
        return self.entries.get(address, "")


def run(scenario: Callable[[Delivery, SuppressionList, FakeClock], Awaitable[None]]) -> None:
    async def body() -> None:
        delivery, clock = Delivery(), FakeClock()
        found = SuppressionList(delivery, clock)
        await found.refusal("t", "d.example", "first@x.example")  # the first recipient starts the fetch and is a question itself
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (delivery.fetches, delivery.lookups) == (1, 1)
        await scenario(delivery, found, clock)

    asyncio.run(body())


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_an_ordinary_recipient_is_no_question() -> None:
    async def scenario(delivery: Delivery, found: SuppressionList, _: FakeClock) -> None:
        for number in range(100):
            assert await found.refusal("t", "d.example", f"b{number}@x.example") is None
        assert (delivery.fetches, delivery.lookups) == (1, 1)

    run(scenario)


def test_a_new_entry_is_refused_with_its_reason_once_the_filter_has_it() -> None:
    async def scenario(delivery: Delivery, found: SuppressionList, clock: FakeClock) -> None:
        delivery.entries["gone@x.example"] = "bounced"
        await clock.advance(3)
        assert await found.refusal("t", "d.example", "gone@x.example") is None  # not known yet: delivery checks once more
        await settle()
        refusal = await found.refusal("t", "d.example", "gone@x.example")
        assert refusal is not None
        assert (refusal.code, refusal.enhanced, refusal.text) == (550, "5.7.1", "bounced")
        assert await found.refusal("t", "d.example", "other@x.example") is None

    run(scenario)


def test_while_delivery_is_away_ordinary_recipients_pass_for_a_while_and_then_wait() -> None:
    async def scenario(delivery: Delivery, found: SuppressionList, clock: FakeClock) -> None:
        delivery.away = True
        await clock.advance(20)
        assert await found.refusal("t", "d.example", "b@x.example") is None
        await settle()
        await clock.advance(20)
        assert await found.refusal("t", "d.example", "b@x.example") == AWAY
        assert AWAY.kind == 4

    run(scenario)
