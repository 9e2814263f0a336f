"""A process that records events until it is killed, and prints each id the moment it is acknowledged.

Run by `test_audit_outage.py` and `test_audit_processes.py`:
``python recording_process.py DATABASE_URL SPOOL PREFIX CALLERS COUNT`` (COUNT 0: until killed).
"""

import asyncio
import os
import sys
from pathlib import Path

import structlog
from audit_helpers import decision

from cds_server.audit import AuditTrail


async def main(database_url: str, spool: Path, prefix: str, callers: int, count: int) -> None:
    """Records with `callers` concurrent callers; one line on stdout per acknowledged event."""
    audit = AuditTrail(database_url, spool, commit_timeout=5.0)
    await audit.start()
    numbers = iter(range(count or 10**9))

    async def caller() -> None:
        for number in numbers:
            event_id = f"{prefix}-{number:07d}"
            await audit.record(decision(event_id))
            os.write(1, f"{event_id}\n".encode())

    await asyncio.gather(*(caller() for _ in range(callers)))
    await audit.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the ids
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
