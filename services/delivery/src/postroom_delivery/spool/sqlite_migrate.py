"""Brings a SQLite spool to the schema of this version, one numbered step after the other; refuses one that a newer version has written."""

import importlib.resources
import sqlite3

from postroom_core.errors import Permanent


def steps() -> list[tuple[int, str]]:
    """(number, SQL) of every migration in order."""
    folder = importlib.resources.files(__package__) / "migrations" / "sqlite"
    return sorted((int(file.name[:4]), file.read_text()) for file in folder.iterdir() if file.name.endswith(".sql"))


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Each step is one transaction with its version number, so that a crash leaves a whole version. Raises Permanent for a newer spool."""
    known = steps()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known[-1][0]:
        raise Permanent(
            f"the spool {name} has schema {version}, newer than this version's {known[-1][0]}: install the newer Postroom again or use another spool"
        )
    for number, sql in known:
        if number > version:
            connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
