"""SQLite: the suppression list."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from postroom_delivery.spool.model import Suppression, SuppressionFilter
from postroom_delivery.spool.sqlite_accept import SQL


def suppress(connection: sqlite3.Connection, entries: Sequence[Suppression]) -> int:
    """See Spool.suppress."""
    changed = 0
    for entry in entries:
        values = asdict(entry) | {"created": entry.created_at, "expires": entry.expires_at}
        connection.execute(SQL["delete_shorter_suppression"], values)
        changed += connection.execute(SQL["insert_suppression"], values).rowcount
    return changed


def unsuppress(connection: sqlite3.Connection, entries: Sequence[Suppression]) -> int:
    """See Spool.unsuppress."""
    return sum(connection.execute(SQL["delete_suppression"], (entry.scope, entry.owner, entry.address)).rowcount for entry in entries)


def suppressions(connection: sqlite3.Connection, which: SuppressionFilter) -> list[Suppression]:
    """See Spool.suppressions."""
    return [Suppression(*row) for row in connection.execute(SQL["suppressions"], asdict(which))]


def suppressed(connection: sqlite3.Connection, now: int, tenant: str, domain: str, addresses: Sequence[str]) -> dict[str, Suppression]:
    """See Spool.suppressed."""
    found = {}
    for address in addresses:
        values = {"now": now, "tenant": tenant, "domain": domain, "address": address}
        if row := connection.execute(SQL["suppressed"], values).fetchone():
            found[address] = Suppression(*row)
    return found
