"""Tasks that run beside the calls until the server stops."""

import asyncio
import contextlib


async def cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and return when it has ended; `None` is one that was never begun."""
    if task is None:
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
