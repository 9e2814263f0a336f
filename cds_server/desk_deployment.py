"""What is recorded of a start that a model bundle prevented: there is no server that could."""

import structlog

from cds_server.audit import AuditUnavailable
from cds_server.audit.settings_change import refusal
from cds_server.clock import utc_now
from cds_server.operator import at_desk
from cds_server.privacy import KeyMaterialInvalid
from cds_server.settings import Settings

_log = structlog.get_logger(__name__)


async def refused_at_start(settings: Settings, fault: str) -> None:
    """Record that the bundle in the settings was refused; what cannot be recorded is logged.

    Args:
        fault: the kind of fault (`deployment.source.ModelRefused`).
    """
    try:
        async with at_desk(settings) as desk:
            await desk.trail.record(refusal(fault, None, utc_now()))
    except (AuditUnavailable, KeyMaterialInvalid, OSError) as error:
        _log.error("model.refusal_not_recorded", fault=fault, error=type(error).__name__)
