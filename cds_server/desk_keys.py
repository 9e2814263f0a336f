"""What is recorded of a key that was rotated at the command line."""

from cds_server.audit import AuditUnavailable
from cds_server.operator import at_desk
from cds_server.privacy import KeyMaterialInvalid
from cds_server.settings import Settings


async def rotated(settings: Settings, purpose: str, number: int) -> str | None:
    """Record that a purpose has a further key; why it could not be recorded, or `None`.

    The key is made by then and stays: it is in use only after the next start, which is recorded as well.
    """
    try:
        async with at_desk(settings) as desk:
            await desk.record("keys-changed", purpose=purpose, result="rotated", to=number)
    except (AuditUnavailable, KeyMaterialInvalid, OSError) as fault:
        return f"{type(fault).__name__}; run `cds-server db upgrade`, or look at CDS_VAR_DIR"
    return None
