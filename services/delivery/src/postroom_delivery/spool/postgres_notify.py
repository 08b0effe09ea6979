"""Notifications between processes on one PostgreSQL: who makes work due tells the others. Lost ones cost nothing but time: schedulers poll."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from postroom_delivery.spool.postgres_link import CONNECT_SECONDS

log = structlog.get_logger(__name__)
CHANNEL = "postroom"
# Who made work due claims it at once; others hear of it in case that one is full or dies. A hundred processes that all claimed at each commit of
# each would do nothing else, so one tells and hears this rarely, and not at the same moment as the others.
NOTIFY_SECONDS = 0.1


async def listening(url: Callable[[], str], holder: str, changed: asyncio.Event, news: asyncio.Event) -> None:
    """Until cancelled: tells the others when `news` is set, sets `changed` when one of them has told."""
    while True:
        await _listen(url, holder, changed, news)


async def _listen(url: Callable[[], str], holder: str, changed: asyncio.Event, news: asyncio.Event) -> None:
    """Passes notifications on in both directions until the connection is lost."""
    lost = asyncio.Event()

    def ended(_connection: Any) -> None:
        lost.set()
        news.set()

    later: asyncio.TimerHandle | None = None

    def heard(_connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        nonlocal later
        loop = asyncio.get_running_loop()
        if payload != holder and (later is None or later.when() <= loop.time()):
            later = loop.call_later(random.uniform(0.5, 1.5) * NOTIFY_SECONDS, changed.set)

    try:
        connection = await asyncpg.connect(url(), timeout=CONNECT_SECONDS, server_settings={"application_name": "postroom-delivery notifications"})
        try:
            connection.add_termination_listener(ended)
            await connection.add_listener(CHANNEL, heard)
            while not lost.is_set():
                await news.wait()
                news.clear()
                await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, holder)
                await asyncio.sleep(NOTIFY_SECONDS)
        finally:
            connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("no notifications from the spool's database; polling goes on", reason=str(error) or type(error).__name__)
    await asyncio.sleep(1.0)
