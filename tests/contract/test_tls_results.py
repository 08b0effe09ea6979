"""How TLS went, counted in either engine: with the settlement, by day, within bounds, over processes."""

import asyncio
import pathlib

import pytest

from postroom_delivery.spool.interface import Spool
from postroom_delivery.spool.model import LostLease
from postroom_delivery.spool.postgres import open_postgres
from postroom_delivery.spool.tls_tally import MOST_ROWS, TlsCount, TlsSession

from contract.postgres import Server
from contract.test_spool import WIDE, Opener, claim_one, delivered, engine, message, run

__all__ = ["engine"]
DAY_MS = 86_400_000
GOOD = TlsSession("x.example", "no-policy-found")
BAD = TlsSession("x.example", "sts\nmode: enforce", "certificate-expired", "mx.x.example", "192.0.2.1", "expired\0")


async def settled(spool: Spool, now: int, *sessions: TlsSession) -> None:
    await spool.settle(now, (), (), sessions)


def test_sessions_are_counted_by_day_and_domain_with_the_settlement_and_only_with_it(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        await spool.accept(message("m"), (0, b"body"))
        batch = await claim_one(spool)
        await spool.settle(0, delivered(batch), (), [GOOD, BAD])
        with pytest.raises(LostLease):
            await spool.settle(0, delivered(batch), (), [GOOD])
        await asyncio.gather(*(settled(spool, DAY_MS - 1, GOOD, TlsSession("a.example", "tlsa\n3 1 1 ab")) for _ in range(5)))
        await settled(spool, DAY_MS, GOOD)
        assert await spool.tls_domains(0, "", 10) == ["a.example", "x.example"]
        assert (await spool.tls_domains(0, "a.example", 10), await spool.tls_domains(0, "", 1)) == (["x.example"], ["a.example"])
        found = await spool.tls_counts(0, "x.example")
        assert sorted((one.session.result, one.session.reason, one.count) for one in found) == [("", "", 6), ("certificate-expired", "expired ", 1)]
        assert await spool.tls_counts(1, "x.example") == [TlsCount(GOOD, 1)]
        await spool.forget_tls(0, "a.example")
        assert await spool.tls_domains(0, "", 10) == ["x.example"]
        await spool.forget_tls(0)
        assert (await spool.tls_domains(0, "", 10), await spool.tls_domains(1, "", 10)) == ([], ["x.example"])

    run(engine, tmp_path, scenario)


def test_a_domain_that_fails_in_ever_new_ways_has_few_rows(engine: Opener, tmp_path: pathlib.Path) -> None:
    async def scenario(spool: Spool) -> None:
        for number in range(3 * MOST_ROWS):
            await settled(spool, 0, TlsSession("x.example", f"sts\nmx: {number}", "validation-failure", f"mx{number}.x.example", "", "x" * 5000))
        found = await spool.tls_counts(0, "x.example")
        assert len(found) == MOST_ROWS + 1
        assert sum(one.count for one in found) == 3 * MOST_ROWS
        assert max(len(one.session.reason) for one in found) == 200
        assert [one.session.policy for one in found if one.count > 1] == ["sts"]

    run(engine, tmp_path, scenario)


def test_processes_count_beside_each_other(postgres_server: Server) -> None:
    url = postgres_server.database()

    async def scenario() -> None:
        async with (
            open_postgres(lambda: url, "one", lambda _: WIDE, caller_clock=True) as one,
            open_postgres(lambda: url, "two", lambda _: WIDE, caller_clock=True) as two,
        ):
            await asyncio.gather(*(settled(spool, 0, GOOD, BAD) for spool in (one, two) for _ in range(20)))
            assert sorted(found.count for found in await one.tls_counts(0, "x.example")) == [40, 40]

    asyncio.run(scenario())
