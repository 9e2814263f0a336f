"""Refused callers in the trail, bounded: who is not let in decides neither how much is stored nor how fast.

In a window of a minute the first refusals are recorded one by one; what comes beyond that is counted and
recorded as one sum for each peer and category when the window ends, and beyond so many peers as one sum
for each category.  Each process counts for itself.
"""

import asyncio
from collections import Counter
from datetime import datetime

import msgspec
import structlog

from cds_server.audit.events import Access, new_id
from cds_server.audit.state import AuditUnavailable
from cds_server.audit.trail import AuditTrail
from cds_server.auth.addresses import neighbourhood
from cds_server.clock import Clock
from cds_server.tasks import cancelled

_log = structlog.get_logger(__name__)
WINDOW_SECONDS = 60.0
MOST_OF_ONE = 5
"""Refusals of one peer and category that are recorded one by one in a window."""
MOST_OF_ALL = 60
"""Refusals that are recorded one by one in a window, whoever they are of."""
MOST_SUMS = 20
"""Peers and categories with a sum of their own in a window."""
SEVERAL = "several"


class _Kind(msgspec.Struct, frozen=True):
    """What is summed together; all of it is ours but the peer's address."""

    peer: str | None
    activity: str
    service: str
    status: int
    reason: str | None


class RefusedAccesses:
    """Records refusals.  One per process; `close` it before its trail.

    Args:
        seconds: length of a window.
    """

    def __init__(self, trail: AuditTrail, clock: Clock, *, seconds: float = WINDOW_SECONDS) -> None:
        self._trail = trail
        self._clock = clock
        self._seconds = seconds
        self._alone: Counter[_Kind] = Counter()
        self._sums: Counter[_Kind] = Counter()
        self._since: datetime | None = None
        self._windows: asyncio.Task[None] | None = None

    async def record(self, access: Access) -> None:
        """Record a refusal, or count it.  One that cannot be recorded stays a refusal; the log says so.

        Args:
            access: `activity`, `status`, `reason` and `network` say what it is summed with.
        """
        if self._windows is None or self._windows.done():
            self._since = self._clock()
            self._windows = asyncio.create_task(self._run())
        kind = _Kind(
            neighbourhood(access.network), access.activity, access.service, access.status, access.reason
        )
        if self._alone[kind] < MOST_OF_ONE and self._alone.total() < MOST_OF_ALL:
            self._alone[kind] += 1
            await self._keep([access])
            return
        if kind not in self._sums and len(self._sums) >= MOST_SUMS:
            kind = msgspec.structs.replace(kind, peer=SEVERAL)
        self._sums[kind] += 1

    async def close(self) -> None:
        """Record the sums of the window that is open."""
        await cancelled(self._windows)
        await self._end_window()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            if not self._alone:
                return
            await self._end_window()

    async def _end_window(self) -> None:
        sums, since, now = self._sums, self._since or self._clock(), self._clock()
        self._alone, self._sums, self._since = Counter(), Counter(), now
        await self._keep([_sum(kind, count, since, now) for kind, count in sums.items()])

    async def _keep(self, accesses: list[Access]) -> None:
        try:
            await self._trail.record_all(accesses)
        except AuditUnavailable:
            _log.error("refusals.not_recorded", events=len(accesses))


def _sum(kind: _Kind, count: int, since: datetime, now: datetime) -> Access:
    several = (("peers", SEVERAL),) if kind.peer == SEVERAL else ()
    return Access(
        event_id=new_id(),
        recorded=now,
        activity=kind.activity,
        service=kind.service,
        status=kind.status,
        reason=kind.reason,
        network=None if kind.peer == SEVERAL else kind.peer,
        detail=(
            ("count", str(count)),
            ("since", since.isoformat(timespec="seconds")),
            ("until", now.isoformat(timespec="seconds")),
            *several,
        ),
    )
