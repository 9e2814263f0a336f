"""The audit trail: takes records, returns when they are durable, and outlives the database.

One writer task collects whatever has queued while the last commit was in flight and makes it durable
in one go (group commit, no artificial delay): in the database, or in the spool while the database is
away.  One keeper task reconnects, replays the spool in order and lets the writer go back to the
database.  Each record is given its place in the chain (`cds_server.audit.chain`) in the moment before
it is made durable.  What is written for a record is the business of `entries`, which rows it becomes of
`cds_server.db.writer`, what is done with one the database refuses of `committing`, what a spool file
looks like of `spool`.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from cds_server.audit import events
from cds_server.audit.chain import Strand
from cds_server.audit.committing import Committer
from cds_server.audit.entries import chained, entry_of, line_of, of_lines
from cds_server.audit.events import Durable
from cds_server.audit.signing import Signer
from cds_server.audit.spool import Segment, Spool
from cds_server.audit.spool_thread import SpoolThread
from cds_server.audit.state import AuditState, AuditUnavailable
from cds_server.audit.waiting import WaitingLine
from cds_server.db.writer import DatabaseAway, Entry, open_writer

_log = structlog.get_logger(__name__)

REPLAY_BYTES = 512 << 10  # of a spool segment in one commit: about 700 events
FIRST_RETRY = 0.1  # seconds; doubles up to
LAST_RETRY = 2.0
ADOPTION_INTERVAL = 15.0  # seconds between two looks for the spool of a process that died


class AuditTrail:
    """Durable, append-only record of what this process decided.  One per process, on its event loop.

    Args:
        database_url: see `cds_server.db.urls`.
        spool_directory: ``<var_dir>/spool``; shared by the processes of one machine.
        commit_timeout: seconds one commit, lock or connection attempt may take before the database
            counts as away and the spool takes over.
        signer: vouches for what this process records, in the first record of its strand; without one
            (measurements) records are chained and a verification says that nobody vouches for them.
    """

    def __init__(
        self,
        database_url: str,
        spool_directory: Path,
        *,
        commit_timeout: float = 2.0,
        signer: Signer | None = None,
    ) -> None:
        self._writer = open_writer(database_url, timeout=commit_timeout)
        self._spool = Spool(spool_directory)
        self._thread = SpoolThread()
        self._committer = Committer(self._writer, self._spool, self._thread)
        self._commit_timeout = commit_timeout
        self._line = WaitingLine()
        self._wake = asyncio.Event()
        self._outage = asyncio.Event()
        self._closing = asyncio.Event()
        self._closed = False
        # Held for each step that must not interleave with another: a batch of the writer, the last
        # stretch of a replay.  Whoever holds it may use the database while `_direct`.
        self._gate = asyncio.Lock()
        self._direct = False
        self._spool_writable = False
        self._tasks: list[asyncio.Task[None]] = []
        self._spooled = self._replayed = self._damaged = self._unavailable = 0
        self._trouble: str | None = None
        self._signer = signer
        self._strand = Strand.new()

    @property
    def strand(self) -> Strand:
        """How far the strand of this process has come: all of it is durable, here or in the spool."""
        return self._strand

    async def start(self) -> None:
        """Connects, adopts what dead processes left, starts.  A database that is away is no error."""
        try:
            await self._thread.run(self._spool.probe)
            self._spool_writable = True
            await self._thread.run(self._spool.adopt)
        except OSError as error:
            _log.error("audit.spool_unwritable", error=type(error).__name__)
        try:
            await self._writer.connect()
            self._direct = True
        except DatabaseAway as error:
            self._leave_database(error)
        self._tasks = [asyncio.create_task(self._write_loop()), asyncio.create_task(self._keep_loop())]
        if self._signer is not None:
            with contextlib.suppress(AuditUnavailable):  # the next record opens the strand then
                await self._durable([])

    async def record(self, record: Durable) -> None:
        """Returns only when the record is durable.

        Raises:
            AuditUnavailable: neither database nor spool could keep it, or the trail is closed.
        """
        await self.record_all((record,))

    async def record_all(self, records: Sequence[Durable]) -> None:
        """Like `record`, for several that belong together: one commit holds them all, in this order."""
        if not self._tasks or self._closing.is_set():
            raise AuditUnavailable("the audit trail is not running")
        if records:
            await self._durable([entry_of(record) for record in records])

    async def _durable(self, entries: list[Entry]) -> None:
        done = self._line.join(entries)
        self._wake.set()
        await done

    async def close(self) -> None:
        """Makes durable what is queued, then lets go.  What is spooled stays on disk."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        self._wake.set()
        self._outage.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._commit_timeout * 4)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks = []
        await self._writer.close()
        with contextlib.suppress(OSError):
            await self._thread.run(self._spool.close)
        self._thread.end()

    def state(self) -> AuditState:
        """What readiness and metrics show; no I/O."""
        return AuditState(
            database_up=self._direct,
            spool_depth=self._spool.depth,
            spool_writable=self._spool_writable,
            committed=self._committer.committed,
            spooled=self._spooled,
            replayed=self._replayed,
            damaged=self._damaged,
            refused=self._committer.refused,
            unavailable=self._unavailable,
            commits=self._committer.commits,
            queued=len(self._line),
            trouble=self._trouble,
        )

    # -- the writer task

    async def _write_loop(self) -> None:
        while True:
            # One turn of the loop: callers that the last commit set free queue their next record.
            await asyncio.sleep(0)
            if not self._line:
                if self._closing.is_set():
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            async with self._gate:
                batch = self._line.take()
                try:
                    await self._keep([entry for waiting in batch for entry in waiting.entries])
                except AuditUnavailable as error:
                    for waiting in batch:
                        waiting.lost(error)
                else:
                    for waiting in batch:
                        waiting.kept()

    async def _keep(self, unchained: list[Entry]) -> None:
        """Makes entries durable, here or there.  Raises: AuditUnavailable."""
        entries, strand = chained(unchained, self._strand, self._signer)
        # Should it fail, nobody knows how much of the batch is stored: what follows begins a new strand.
        self._strand = Strand.new()
        try:
            if self._direct:
                try:
                    await self._committer.commit(entries)
                    self._strand = strand
                    return
                except DatabaseAway as error:
                    # Part of the batch may be committed; replaying all of it stores each record once.
                    self._leave_database(error)
            lines = [line_of(entry) for entry in entries]
            await self._thread.run(self._spool.append, lines)
            self._strand = strand
            self._spooled += len(entries)
            self._spool_writable = True
        except OSError as error:
            self._spool_writable = False
            self._unavailable += len(entries)
            _log.error(
                "audit.unavailable", records=len(entries), error=type(error).__name__, errno=error.errno
            )
            raise AuditUnavailable("neither the database nor the spool can keep the record") from error
        except Exception as error:  # the task must live on: its end would hang every later answer
            self._unavailable += len(entries)
            _log.error("audit.defect", records=len(entries), error=type(error).__name__)
            raise AuditUnavailable("the audit trail failed") from error

    def _leave_database(self, error: Exception) -> None:
        if self._direct or self._trouble is None:
            _log.warning("audit.database_away", error=str(error))
        self._direct = False
        self._trouble = str(error)
        self._outage.set()

    # -- the keeper task

    async def _keep_loop(self) -> None:
        delay = FIRST_RETRY
        while not self._closing.is_set():
            try:
                if not self._direct:
                    await self._writer.connect()
                    await self._replay_own()
                    _log.info(
                        "audit.database_back", committed=self._committer.committed, replayed=self._replayed
                    )
                await self._replay_adopted()
                delay = FIRST_RETRY
            except DatabaseAway as error:
                self._leave_database(error)
                await self._pause(self._closing, delay)
                delay = min(delay * 2, LAST_RETRY)
            except Exception as error:  # noqa: BLE001 the task must live on: without it the spool is never replayed
                _log.error("audit.replay_failed", error=type(error).__name__)
                await self._pause(self._closing, LAST_RETRY)
            else:
                self._outage.clear()
                if self._direct and not self._closing.is_set():  # close() sets both, `_closing` first
                    await self._pause(self._outage, ADOPTION_INTERVAL)
                    with contextlib.suppress(OSError):
                        await self._thread.run(self._spool.adopt)

    async def _replay_own(self) -> None:
        """Brings our own spool into the database, in order, then lets the writer follow."""
        while self._spool.unread_bytes() > REPLAY_BYTES and not self._closing.is_set():
            segment = self._spool.own[0]
            await self._replay_chunk(segment)
            if segment.position >= segment.size and segment is not self._spool.own[-1]:
                await self._thread.run(self._spool.retire, segment)
        # The writer waits here: nothing can slip in between the last line and `_direct`.
        async with self._gate:
            while self._spool.own:
                segment = self._spool.own[0]
                while segment.position < segment.size:
                    await self._replay_chunk(segment)
                await self._thread.run(self._spool.retire, segment)
            self._direct = True
            self._trouble = None

    async def _replay_adopted(self) -> None:
        """Brings the spools of dead processes into the database, in turns with our own batches."""
        while self._spool.adopted and not self._closing.is_set():
            segment = self._spool.adopted[0]
            async with self._gate:
                if not self._direct:
                    return
                if segment.position < segment.size:
                    await self._replay_chunk(segment)
                else:
                    await self._thread.run(self._spool.retire, segment)

    async def _replay_chunk(self, segment: Segment) -> None:
        chunk = await self._thread.run(self._spool.read, segment, REPLAY_BYTES)
        entries, damaged = of_lines(chunk.payloads)
        damaged = [*chunk.damaged, *damaged]
        unchained = [entry for entry in entries if entry.link is None and events.is_event(entry.record)]
        if unchained:
            # Left by a version without a chain: they take their places in ours, as new ones would.  Only
            # adopted segments can hold such lines, and they are replayed in turns with the writer.
            held = await self._writer.stored([events.identity(entry.record) for entry in unchained])
            known = {stored.record_id for stored in held}
            new = [entry for entry in unchained if events.identity(entry.record) not in known]
            placed, strand = chained(new, self._strand, self._signer)
            self._strand = Strand.new()
            late = [entry for entry in entries if entry.link is not None or not events.is_event(entry.record)]
            await self._committer.commit([*placed, *late])
            self._strand = strand
        elif entries:
            await self._committer.commit(entries)
        if damaged:
            await self._thread.run(self._spool.set_aside, segment.path.stem, damaged)
            self._damaged += len(damaged)
            _log.error("audit.spool_damaged", segment=segment.path.name, lines=len(damaged))
        await self._thread.run(self._spool.advance, segment, chunk)
        self._replayed += len(entries)

    @staticmethod
    async def _pause(event: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
