"""What the audit trail tells of itself: its state, and that it cannot keep a record."""

from dataclasses import dataclass


class AuditUnavailable(Exception):
    """Neither the database nor the spool can keep a record: the answer must not leave (HTTP 503)."""


@dataclass(frozen=True, slots=True)
class AuditState:
    """What to watch.

    `database_up`: records go to the database now.  `spool_depth`: records of this process (and of dead
    ones it adopted) that wait for the database.  `spool_writable`: the spool could take over.  The rest
    counts since the start: `committed` records new in the database, `spooled` records that went to
    the spool, `replayed` records read back from it, `damaged` spool lines and `refused` records set
    aside for a person to look at, `unavailable` records that could not be kept.  `trouble` names the
    last reason for which the database was away.
    """

    database_up: bool
    spool_depth: int
    spool_writable: bool
    committed: int
    spooled: int
    replayed: int
    damaged: int
    refused: int
    unavailable: int
    commits: int
    queued: int
    trouble: str | None
