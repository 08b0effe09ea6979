"""Chooses the engine by the spool's URL. The only place that knows all engines."""

import contextlib
import pathlib

from postroom_core.errors import Permanent
from postroom_delivery.spool.interface import LimitsOf, Spool
from postroom_delivery.spool.sqlite import open_sqlite

_SQLITE = "sqlite://"


def open_spool(url: str, holder: str, now: int, limits_of: LimitsOf) -> contextlib.AbstractAsyncContextManager[Spool]:
    """`holder` names this process in leases: never used twice. Entering raises Permanent with one sentence when the spool cannot be used as it is."""
    if url.startswith(f"{_SQLITE}/"):
        return open_sqlite(pathlib.Path(url.removeprefix(_SQLITE)), holder, now, limits_of)
    raise Permanent("the spool's URL must be sqlite:///PATH")
