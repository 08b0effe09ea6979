"""Chooses the engine by the spool's URL. The only place that knows all engines."""

import contextlib
import pathlib
from collections.abc import Callable

from postroom_core.errors import Permanent
from postroom_delivery.spool.interface import LEASE_MS, LimitsOf, Spool
from postroom_delivery.spool.postgres import open_postgres
from postroom_delivery.spool.sqlite import open_sqlite

_SQLITE = "sqlite://"


def open_spool(
    url: Callable[[], str], holder: str, now: int, limits_of: LimitsOf, lease_ms: int = LEASE_MS
) -> contextlib.AbstractAsyncContextManager[Spool]:
    """`holder` names this process in leases: never used twice. Entering raises Permanent with one sentence when the spool cannot be used as it is."""
    chosen = url()
    if chosen.startswith(("postgresql://", "postgres://")):
        return open_postgres(url, holder, limits_of, lease_ms=lease_ms)
    if chosen.startswith(f"{_SQLITE}/"):
        return open_sqlite(pathlib.Path(chosen.removeprefix(_SQLITE)), holder, now, limits_of, lease_ms)
    raise Permanent("the spool's URL must be sqlite:///PATH or postgresql://…")
