"""Work that is dear in memory or processor: verifiers (16 MiB each while one is derived) and RSA keys. Two at once over all domains.

So a restart or a thousand new domains need no more memory than two, and leave the processor to the Lease's renewal.
"""

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

WORKERS = 2
Result = TypeVar("Result")
# glibc's mallopt(3). Left to itself it learns from the first large block that was freed to keep the next ones: 16 MiB for each thread, for ever.
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK = 1 << 20


def _give_large_blocks_back() -> None:
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


_workers = ThreadPoolExecutor(WORKERS, "hard-work", initializer=_give_large_blocks_back)


async def done(work: Callable[[], Result]) -> Result:
    """What `work` returns, when its turn has come."""
    return await asyncio.get_running_loop().run_in_executor(_workers, work)
