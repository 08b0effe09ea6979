"""SQLite: keeps the roll-ups (see `rollup`). Events are read by the reading connection and folded there; the writer only adds the sums."""

import sqlite3
from collections import Counter
from collections.abc import Mapping

from postroom_delivery.spool import statements
from postroom_delivery.spool.rollup import KEEP, MOST_FACTS, PAGE, Fact, Happening, columns

SQL = statements.load("sqlite_rollup.sql")


def unseen(connection: sqlite3.Connection) -> tuple[int, list[Happening]]:
    """(number of the last event that is counted, the next events)."""
    (cursor,) = connection.execute(SQL["rollup_cursor"]).fetchone()
    return cursor, [Happening(*row) for row in connection.execute(SQL["unseen_events"], (cursor, PAGE))]


def add(connection: sqlite3.Connection, cursor: int, last: int, facts: Counter[Fact]) -> bool:
    """Adds the sums and moves the cursor in one transaction; False, and nothing is added, when another moved it first."""
    if connection.execute(SQL["move_rollup_cursor"], (last, cursor)).rowcount == 0:
        return False
    connection.executemany(SQL["add_rollup"], [(*fact, count) for fact, count in facts.items()])
    return True


def forget(connection: sqlite3.Connection, now: int) -> None:
    """What is older than is kept."""
    for grain, keep in KEEP.items():
        connection.execute(SQL["forget_rollup"], (grain, now - keep))


def ask(
    connection: sqlite3.Connection, span: tuple[int, int, int], by: tuple[str, ...], where: Mapping[str, str]
) -> list[tuple[tuple[str, ...], str, int, int]]:
    """(group's values, measure, bucket, count) of `span`: grain, since, until. Names are of analytics.GROUPS, values are bound."""
    chosen = "".join(f"{column}, " for column in columns(by))
    limits = "".join(f" AND {column} = ?" for column in columns(where))
    query = (
        f"SELECT {chosen}measure, bucket, sum(count) FROM rollup WHERE grain = ? AND start >= ? AND start < ?{limits}"
        f" GROUP BY {chosen}measure, bucket LIMIT {MOST_FACTS}"
    )
    return [(tuple(str(value) for value in row[:-3]), *row[-3:]) for row in connection.execute(query, (*span, *where.values()))]
