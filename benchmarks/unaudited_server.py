"""The server with a trail that keeps nothing: what auditing is measured against, and only there.

    python -m benchmarks.unaudited_server

The settings are those of `cds-server serve`; every record is taken and forgotten.  There is no such
setting in the product, on purpose.
"""

import os
from collections.abc import Sequence

import uvicorn

import cds_server.app
from cds_server.audit import AuditTrail
from cds_server.audit.events import Durable
from cds_server.serve import application
from cds_server.settings import Settings


class ForgetfulTrail(AuditTrail):
    """Takes what `AuditTrail` takes and keeps none of it."""

    async def start(self) -> None:
        """Connects to nothing."""

    async def record_all(self, records: Sequence[Durable]) -> None:
        """Returns at once."""


def main() -> None:
    """Serve as `cds_server.serve.run` does with one worker."""
    if os.environ.get("CDS_KEEP_THE_TRAIL") != "no":
        raise SystemExit("a server for `benchmarks.audited_throughput` alone: it audits nothing")
    vars(cds_server.app)["AuditTrail"] = ForgetfulTrail
    settings = Settings()
    uvicorn.run(
        application(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
