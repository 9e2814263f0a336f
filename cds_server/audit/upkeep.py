"""What the trail needs from time to time while the server runs: checkpoints, and next month's partition.

One task of each process.
"""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit.chain import Strand
from cds_server.audit.sealing import Sealer
from cds_server.audit.trail import AuditTrail
from cds_server.clock import Clock
from cds_server.db import partitions
from cds_server.tasks import cancelled

_log = structlog.get_logger(__name__)
_LOOK = 1.0  # seconds between two looks at how much is not sealed
_MONTHS = timedelta(hours=6)  # between two looks at the partitions


class Upkeep:
    """The task.

    Args:
        interval: a checkpoint is made after this time at the latest, if there is anything new.
        events: and after so many events of this process.
    """

    def __init__(
        self,
        trail: AuditTrail,
        sealer: Sealer,
        engine: AsyncEngine,
        *,
        interval: timedelta,
        events: int,
        clock: Clock,
    ) -> None:
        self._trail = trail
        self._sealer = sealer
        self._engine = engine
        self._interval = interval.total_seconds()
        self._events = events
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._sealed = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        await cancelled(self._task)
        self._task = None

    async def close(self) -> None:
        """The last checkpoint of this process; call it when its trail is closed."""
        await self._seal(closed=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        months = seal = loop.time()
        while True:
            now = loop.time()
            if now >= months:
                months = now + _MONTHS.total_seconds()
                await self._months()
            due = self._trail.strand.count - self._sealed >= self._events
            if due or now >= seal:
                seal = now + self._interval
                await self._seal()
            await asyncio.sleep(min(_LOOK, self._interval))

    async def _months(self) -> None:
        try:
            found = await partitions.make_ahead(self._engine, self._clock())
        except (SQLAlchemyError, OSError) as error:
            _log.warning("audit.months_not_made", error=type(error).__name__)
            return
        for month, what in found.items():
            if what == "added":
                _log.info("audit.month_added", month=f"{month:%Y-%m}")
            elif what == "unfiled":
                _log.warning("audit.month_unfiled", month=f"{month:%Y-%m}")

    async def _seal(self, *, closed: bool = False) -> None:
        # What is in the spool is not in the database yet: sealed, it would look as if it had been taken out.
        state = self._trail.state()
        if not state.database_up:
            return
        strand: Strand = self._trail.strand
        try:
            body = await self._sealer.seal(strand, closed=closed)
        except (SQLAlchemyError, OSError) as error:
            _log.warning("audit.not_sealed", error=type(error).__name__)
            return
        self._sealed = strand.count
        if body is not None:
            _log.info("audit.sealed", checkpoint=body.number, strands=len(body.strands))
