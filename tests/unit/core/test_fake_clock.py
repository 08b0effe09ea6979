"""The kit's clock against its contract: the same assertions hold for the system's clock where they can."""

import asyncio

import pytest

from postroom_core.clock import Clock, SystemClock
from postroom_core.testing.clock import START_MS, FakeClock


@pytest.mark.parametrize("clock", [FakeClock(), SystemClock()])
def test_both_clocks_return_at_once_from_a_sleep_of_nothing(clock: Clock) -> None:
    asyncio.run(clock.sleep(0))
    assert clock.monotonic() >= 0
    assert clock.now_ms() > 1_700_000_000_000


def test_time_stands_still_until_it_is_advanced() -> None:
    async def main() -> None:
        clock = FakeClock()
        assert (clock.now_ms(), clock.monotonic()) == (START_MS, 0.0)
        await clock.advance(1.5)
        assert (clock.now_ms(), clock.monotonic()) == (START_MS + 1500, 1.5)

    asyncio.run(main())


def test_sleepers_wake_in_order_each_at_its_own_time() -> None:
    async def main() -> None:
        clock, woken = FakeClock(), list[tuple[str, float]]()

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append((name, clock.monotonic()))

        tasks = [asyncio.create_task(sleeper(name, seconds)) for name, seconds in (("late", 5), ("early", 1), ("never", 60))]
        await clock.wait_for_sleepers(3)
        await clock.advance(10)
        assert woken == [("early", 1.0), ("late", 5.0)]
        assert clock.sleeping == 1
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_a_loop_that_sleeps_runs_once_per_period_in_one_advance() -> None:
    async def main() -> None:
        clock, ticks = FakeClock(), list[float]()

        async def ticker() -> None:
            while True:
                await clock.sleep(2)
                ticks.append(clock.monotonic())

        task = asyncio.create_task(ticker())
        await clock.advance(7)
        assert ticks == [2.0, 4.0, 6.0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_step_of_the_wall_clock_wakes_nobody() -> None:
    async def main() -> None:
        clock = FakeClock()
        task = asyncio.create_task(clock.sleep(1))
        await clock.wait_for_sleepers()
        clock.step(-3600)
        assert clock.now_ms() == START_MS - 3_600_000
        assert not task.done()
        await clock.advance(1)
        await task

    asyncio.run(main())


def test_a_cancelled_sleeper_is_forgotten() -> None:
    async def main() -> None:
        clock = FakeClock()
        task = asyncio.create_task(clock.sleep(1))
        await clock.wait_for_sleepers()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert clock.sleeping == 0
        await clock.advance(2)

    asyncio.run(main())
