"""Progress bars of the dataset commands, or none at all when nobody looks.

Counts work that is done; what the work is stands with its caller.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Bar:
    """One task of a `Progress`."""

    def __init__(self, progress: Progress, what: str, total: float) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total)

    def advance(self, done: float = 1.0) -> None:
        """Report work done, in the unit of the task's total."""
        self._progress.advance(self._task, done)


class Bars:
    """Makes the bars of one run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def start(self, what: str, total: float) -> Bar:
        """A new bar named `what` over `total` units."""
        return Bar(self._progress, what, total)


@contextmanager
def bars(console: Console | None) -> Iterator[Bars]:
    """Show bars on `console` while the block runs; `None` shows nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None) as progress:
        yield Bars(progress)
