"""Records that wait to be made durable, and who waits for them: what has queued goes in one commit."""

import asyncio

from cds_server.audit.state import AuditUnavailable
from cds_server.db.writer import Entry

BATCH = 1_000  # records in one commit


class Waiting:
    """Records of one caller, made durable together."""

    __slots__ = ("_done", "entries")

    def __init__(self, entries: list[Entry], done: asyncio.Future[None]) -> None:
        self.entries = entries
        self._done = done

    def kept(self) -> None:
        """Lets the caller go on, who may be gone; the records stay."""
        if not self._done.done():
            self._done.set_result(None)

    def lost(self, error: AuditUnavailable) -> None:
        """Tells the caller that they could not be kept."""
        if not self._done.done():
            self._done.set_exception(AuditUnavailable(str(error)))


class WaitingLine:
    """All who wait, in the order in which they came."""

    def __init__(self) -> None:
        self._all: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._all)

    def join(self, entries: list[Entry]) -> asyncio.Future[None]:
        """Queues records; what is returned is done when they are durable, or has an `AuditUnavailable`."""
        done = asyncio.get_running_loop().create_future()
        self._all.append(Waiting(entries, done))
        return done

    def take(self) -> list[Waiting]:
        """The next of them: at most `BATCH` records, but one caller's are never parted."""
        taken, count = 0, 0
        for waiting in self._all:
            if taken and count + len(waiting.entries) > BATCH:
                break
            taken += 1
            count += len(waiting.entries)
        batch, self._all = self._all[:taken], self._all[taken:]
        return batch
