"""Runs the application under uvicorn: event loop, workers, garbage collection, and the first words printed.

Imports the application late: with several workers the metrics directory must be set before
`prometheus_client` is imported, and the parent process never needs the knowledge at all.
"""

import gc
import os
import shutil
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from cds_server.auth.clients import load_clients
from cds_server.deployment.memory import settle
from cds_server.deployment.source import BundleSource
from cds_server.monitoring.logging import configure_logging
from cds_server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def application(settings: Settings | None = None) -> "FastAPI":
    """The application of one worker, loaded, with its garbage collector told what will stay.

    What was loaded lives as long as the process: frozen, no later collection walks through it.  The
    structs of a request are outside the collector (`gc=False`), so rare young collections do.
    """
    from cds_server.app import create_app  # noqa: PLC0415 see the module's text

    settings = settings if settings is not None else Settings()
    configure_logging(settings.log_level, settings.log_format)
    app = create_app(settings)
    settle()
    gc.set_threshold(100_000, 20, 50)
    return app


class _Server(uvicorn.Server):
    """uvicorn's server, which says what to try once it really listens."""

    def __init__(self, config: uvicorn.Config, greeting: str) -> None:
        super().__init__(config)
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server.startup`."""
        await super().startup(sockets=sockets)
        if self.started and not self.should_exit:
            _say(self._greeting)


def run(settings: Settings) -> None:
    """Serve until told to stop.  With several workers each reads the settings again from the environment."""
    options = {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop" if sys.platform != "win32" else "asyncio",
        "http": "httptools",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 10,
    }
    if settings.workers == 1:
        server = _Server(uvicorn.Config(application(settings), **options), greeting(settings))  # type: ignore[arg-type]
        server.run()
        if not server.started:
            raise SystemExit(3)
        return
    # Every worker would stop, and be started again, over a bundle or a list of clients that does not hold.
    BundleSource.of(settings).verify()
    if settings.trusted_clients is not None:
        load_clients(settings.trusted_clients)
    directory = settings.var_dir / "metrics"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.environ[_METRICS_VARIABLE] = str(directory.resolve())
    _say(greeting(settings))
    uvicorn.run("cds_server.serve:application", factory=True, workers=settings.workers, **options)  # type: ignore[arg-type]


_CALLERS = {
    "required": "must authenticate (CDS_CLIENT_AUTH=required)",
    "optional": "may authenticate (CDS_CLIENT_AUTH=optional): who sends no token is let in",
    "off": "are not authenticated (CDS_CLIENT_AUTH=off)",
}


def greeting(settings: Settings) -> str:
    """What to try next."""
    base = settings.base_url
    local = settings.local_url if settings.on_loopback else base
    return f"""
cds-server is listening on {settings.host}:{settings.port}

  discovery    {base}/cds-services
  simple form  {base}/docs
  FHIR         {base}/fhir/metadata
  health       {base}/health/ready   metrics  {base}/metrics
  callers      {_CALLERS[settings.authentication]}

Try it, in another terminal:

  .venv/bin/cds-server call examples/sepsis.json

or without the command:

  curl -s {local}/cds-services/diagnostic-assessment \\
       -H 'Content-Type: application/json' --data @examples/sepsis.json

CDS Hooks Sandbox: open https://sandbox.cds-hooks.org, gear menu, "Add CDS Services", {base}/cds-services
"""


def _say(text: str) -> None:
    # Standard error, so that standard output stays a clean stream of log lines.
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
