"""Named SQL statements from a .sql file: `-- name: NAME` starts one, everything up to the next name is its text."""

import importlib.resources
import re

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(file: str) -> dict[str, str]:
    """The statements of queries/`file` by name. Raises KeyError on use of a name that is not there, ValueError for a name given twice."""
    text = (importlib.resources.files(__package__) / "queries" / file).read_text()
    parts = _NAME.split(text)[1:]
    statements = {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
    if len(statements) * 2 != len(parts):
        raise ValueError(f"{file} names a statement twice")
    return statements
