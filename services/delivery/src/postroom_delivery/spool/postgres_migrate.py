"""Brings a PostgreSQL spool to the schema of this version, one numbered step after the other, while old processes go on working.

Whoever comes first takes the lock and migrates; the others wait. A step that old code cannot work with says so in its first line,
`-- oldest: NUMBER`: code that knows less is refused from then on. Without such a line old and new code both survive the step.
"""

import importlib.resources
import re

import asyncpg

from postroom_core.errors import Permanent

# Any number that no other user of the database takes for an advisory lock: "postroom" in ASCII, cut to 32 bits.
LOCK = 0x706F7374
_OLDEST = re.compile(r"^-- oldest: (\d+)$", re.MULTILINE)


def steps() -> list[tuple[int, str]]:
    """(number, SQL) of every migration in order."""
    folder = importlib.resources.files(__package__) / "migrations" / "postgres"
    return sorted((int(file.name[:4]), file.read_text()) for file in folder.iterdir() if file.name.endswith(".sql"))


async def migrate(connection: asyncpg.Connection) -> None:
    """Each step is one transaction with its number. Raises Permanent when the spool needs newer code than this."""
    await connection.execute("SELECT pg_advisory_lock($1, 0)", LOCK)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_step (number integer PRIMARY KEY, oldest integer NOT NULL)")
        done = {row["number"]: row["oldest"] for row in await connection.fetch("SELECT number, oldest FROM schema_step")}
        known = steps()
        if max(done.values(), default=0) > known[-1][0]:
            raise Permanent(
                f"the spool needs a Postroom that knows schema {max(done.values())}; this one knows {known[-1][0]}: install the newer one"
            )
        for number, sql in known:
            if number not in done:
                oldest = _OLDEST.search(sql)
                async with connection.transaction():
                    await connection.execute(sql)
                    await connection.execute("INSERT INTO schema_step VALUES ($1, $2)", number, int(oldest[1]) if oldest else 1)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1, 0)", LOCK)
