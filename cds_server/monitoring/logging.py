"""Logging, configured once: one JSON object per line on standard output, ids, times and decisions only."""

import logging
import sys

import msgspec
import structlog
from structlog.typing import Processor

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str, form: str) -> None:
    """Send structlog and the standard library's loggers to standard output.

    Args:
        level: least level that is written.
        form: ``json`` or ``console``.
    """
    number = _LEVELS[level]
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    wrapper = structlog.make_filtering_bound_logger(number)
    if form == "console":
        structlog.configure(
            processors=[*processors, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())],
            wrapper_class=wrapper,
            logger_factory=structlog.PrintLoggerFactory(sys.stdout),
            cache_logger_on_first_use=True,
        )
    else:
        encode = msgspec.json.Encoder(enc_hook=str).encode
        structlog.configure(
            processors=[*processors, structlog.processors.JSONRenderer(serializer=lambda v, **_: encode(v))],
            wrapper_class=wrapper,
            logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
            cache_logger_on_first_use=True,
        )
    # Access lines would carry paths of callers' choosing; each call has a line of ours instead.
    logging.getLogger("uvicorn.access").disabled = True
    logging.basicConfig(level=max(number, logging.WARNING), format="%(levelname)s %(name)s %(message)s")
