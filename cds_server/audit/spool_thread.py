"""The one thread that does the spool's file work, in order: the event loop never waits for a disk."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class SpoolThread:
    """Runs calls one after another."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit-spool")

    async def run(self, call: Callable[..., _T], *args: object) -> _T:
        """The result of a call; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    def end(self) -> None:
        """No more calls; waits for none."""
        self._executor.shutdown(wait=False)
