"""The tasks that belong to one node: kept while they run, and ended when it stops."""

from __future__ import annotations

import asyncio
import logging

log = logging.getLogger("meshwalk")


class Tasks:
    """Tasks that nothing waits for: dials, and handlers that are coroutines."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def own(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it is done."""
        self._running.add(task)
        task.add_done_callback(self._done)

    async def end(self, timeout_s: float) -> None:
        """Cancel all that run. Those that do not end within `timeout_s` are left behind."""
        for task in self._running:
            task.cancel()
        if self._running:
            _, stuck = await asyncio.wait(self._running, timeout=timeout_s)
            if stuck:
                log.warning("%d handlers do not end when they are cancelled", len(stuck))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours: nothing waits for this task, so say it where it will be seen.
            task.get_loop().call_exception_handler(
                {"message": "a task of a meshwalk node failed", "exception": error, "task": task}
            )
