"""Runs services as processes: starts them, restarts one that dies, ends them in order. Knows nothing of mail.

Every child is in a session of its own, so that Ctrl-C in a terminal reaches the parent alone (`postroom up`, or an ingress of several processes),
which then drains them. Each holds the end of a pipe as its standard input: if the parent is killed, the children see it end and drain by themselves.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from postroom_core.errors import Permanent
from postroom_core.lifecycle import LIFELINE

log = structlog.get_logger(__name__)
# A crash loop must not burn a core; a single crash must not be noticed by clients, which retry after seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
# A service that has run this long was healthy: its next crash starts with the first pause again.
HEALTHY_SECONDS = 30.0
STOP_SECONDS = 75.0  # the longest drain (ingress, 60 s) and some
CONFIGURATION_FAULTS = (2, 3)  # what services exit with when trying again cannot help


@dataclass
class Child:
    """One service. `fault` is set when it ended because of its configuration."""

    module: str
    environment: Mapping[str, str] = field(repr=False)
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False
    restarts: int = 0

    async def run(self) -> None:
        """Until `stop`. Raises Permanent when the service cannot run with this configuration."""
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        while True:
            began = loop.time()
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.module),
                env={**self.environment, LIFELINE: "1"},
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            status = await self.process.wait()
            if self._asked_to_stop():
                return
            if status in CONFIGURATION_FAULTS:
                raise Permanent(f"{self.module} cannot run with this configuration, see its line above")
            pause = FIRST_PAUSE if loop.time() - began > HEALTHY_SECONDS else min(pause * 2, LONGEST_PAUSE)
            self.restarts += 1
            log.warning("a service ended, it is started again", service=self.module, status=status, pause_seconds=pause)
            await asyncio.sleep(pause)
            if self._asked_to_stop():
                return

    def _asked_to_stop(self) -> bool:
        return self.stopping

    async def stop(self) -> None:
        """SIGTERM, the drain, and after STOP_SECONDS the end by force."""
        self.stopping = True
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            log.error("a service did not drain in time and is killed", service=self.module)
            self.process.kill()
            await self.process.wait()

    def kill(self) -> None:
        """At once."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
