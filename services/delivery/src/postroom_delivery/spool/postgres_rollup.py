"""PostgreSQL: keeps the roll-ups (see `rollup`). One process counts at a time, in one transaction with the cursor: each event is counted once."""

from collections.abc import Mapping

from postroom_delivery.spool import statements
from postroom_delivery.spool.postgres_link import Connection, Transaction
from postroom_delivery.spool.postgres_migrate import LOCK
from postroom_delivery.spool.rollup import KEEP, MOST_FACTS, PAGE, Happening, columns, fold

SQL = statements.load("postgres_rollup.sql")


async def roll_up(transaction: Transaction) -> int:
    """Counts the next page of events; how many. 0 also when another process counts now."""
    connection = transaction.connection
    if not await connection.fetchval(SQL["rollup_lock"], LOCK):
        return 0
    cursor = await connection.fetchval(SQL["rollup_cursor"])
    found = [Happening(*row) for row in await connection.fetch(SQL["unseen_events"], cursor, PAGE)]
    if found:
        # In the order of the key, as everybody who ever locks several of these rows.
        rows = sorted((*fact, count) for fact, count in fold(found).items())
        await connection.fetch(SQL["add_rollup"], *map(list, zip(*rows, strict=True))) if rows else None
        await connection.execute(SQL["move_rollup_cursor"], found[-1].number)
    return len(found)


async def forget(transaction: Transaction, now: int) -> None:
    """What is older than is kept."""
    for grain, keep in KEEP.items():
        await transaction.connection.execute(SQL["forget_rollup"], grain, now - keep)


async def ask(
    connection: Connection, span: tuple[int, int, int], by: tuple[str, ...], where: Mapping[str, str]
) -> list[tuple[tuple[str, ...], str, int, int]]:
    """(group's values, measure, bucket, count) of `span`: grain, since, until. Names are of analytics.GROUPS, values are bound."""
    chosen = "".join(f"{column}, " for column in columns(by))
    limits = "".join(f" AND {column} = ${number}" for number, column in enumerate(columns(where), 4))
    query = (
        f"SELECT {chosen}measure, bucket, sum(count)::bigint FROM rollup WHERE grain = $1 AND start >= $2 AND start < $3{limits}"
        f" GROUP BY {chosen}measure, bucket LIMIT {MOST_FACTS}"
    )
    rows = await connection.fetch(query, *span, *where.values())
    return [(tuple(str(value) for value in tuple(row)[:-3]), *tuple(row)[-3:]) for row in rows]
