"""Work that is dear in memory or processor: verifiers (16 MiB each while one is derived) and RSA keys. Two at once over all domains.

So a restart or a thousand new domains need no more memory than two, and leave the processor to the Lease's renewal. Threads of its own: what the
allocator keeps of their large blocks is kept twice and not once for each thread of the loop's pool.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

WORKERS = 2
Result = TypeVar("Result")
_workers = ThreadPoolExecutor(WORKERS, "hard-work")


async def done(work: Callable[[], Result]) -> Result:
    """What `work` returns, when its turn has come."""
    return await asyncio.get_running_loop().run_in_executor(_workers, work)
