"""Stores entries in the database so that each keeps its place: refused ones and repeated ones too."""

import structlog

from cds_server.audit import events
from cds_server.audit.entries import withheld
from cds_server.audit.spool import Spool
from cds_server.audit.spool_thread import SpoolThread
from cds_server.db.writer import Entry, RecordRefused, Writer

_log = structlog.get_logger(__name__)


class Committer:
    """Counts since the start: `committed` records new in the database, `commits`, `refused` records."""

    def __init__(self, writer: Writer, spool: Spool, thread: SpoolThread) -> None:
        self._writer = writer
        self._spool = spool
        self._thread = thread
        self.committed = self.commits = self.refused = 0

    async def commit(self, entries: list[Entry]) -> None:
        """Stores entries; one the database refuses is set aside, alone.  Raises: DatabaseAway, OSError."""
        try:
            new = await self._writer.write(entries)
            self.committed += new
            self.commits += 1
            chained = [entry for entry in entries if entry.link is not None]
            if new < len(chained):
                await self._fill_places(chained)
        except RecordRefused as error:
            if len(entries) > 1:
                middle = len(entries) // 2
                await self.commit(entries[:middle])
                await self.commit(entries[middle:])
                return
            await self._thread.run(
                lambda: self._spool.set_aside("refused", [entries[0].payload], suffix=".records")
            )
            self.refused += 1
            _log.error("audit.record_refused", id=events.identity(entries[0].record), error=str(error))
            if entries[0].link is not None:
                await self._writer.write([withheld(entries[0], "refused")])

    async def _fill_places(self, entries: list[Entry]) -> None:
        """Keeps the places of records that were passed over because their ids are stored at other places.

        A record that is replayed is there at its own place and needs nothing.
        """
        held = await self._writer.stored([events.identity(entry.record) for entry in entries])
        places = {stored.record_id: (stored.strand, stored.place) for stored in held}
        repeated = [
            withheld(entry, "repeated")
            for entry in entries
            if entry.link is not None
            and places.get(events.identity(entry.record)) != (entry.link.strand, entry.link.place)
        ]
        if repeated:
            await self._writer.write(repeated)
