"""What a person does at the command line with stored data, and its record in the audit trail."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import AuditTrail, Entity
from cds_server.audit.access import of_operator
from cds_server.clock import Clock, utc_now
from cds_server.db.engine import create_engine
from cds_server.people import People
from cds_server.privacy import Cipher, Pseudonymiser, SiteKeys
from cds_server.settings import Settings
from cds_server.site_keys import site_keys, site_signer

_PATIENCE = 60.0
"""Seconds for one statement: a person waits longer than a call."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command needs: the database, the site's keys, the audit trail, the time."""

    settings: Settings
    engine: AsyncEngine
    keys: SiteKeys
    pseudonymiser: Pseudonymiser
    trail: AuditTrail
    now: Clock

    async def people(self) -> People:
        """For finding the pseudonyms of a person by an id."""
        return await People.load(self.pseudonymiser, Cipher(self.keys.cipher), self.engine)

    async def record(
        self,
        activity: str,
        *,
        patient: str | None = None,
        entity: str | None = None,
        status: int = 200,
        **detail: str | int | bool | None,
    ) -> str:
        """Audit what was done; returns the event's id when it is durable.

        Args:
            activity: a code of `audit.activities`.
            patient: a pseudonym.
            entity: what it was about, as a FHIR reference or URI.
            detail: short facts of ours; no identifier, no clinical value.

        Raises:
            AuditUnavailable: it cannot be recorded now; what was asked for must not be done.
        """
        told = tuple(
            (name.replace("_", "-"), _text(value)) for name, value in detail.items() if value is not None
        )
        event = of_operator(
            activity,
            status=status,
            patient=patient,
            entities=() if entity is None else (Entity(entity),),
            detail=told,
        )
        await self.trail.record(event)
        return event.event_id


@asynccontextmanager
async def at_desk(settings: Settings, *, now: Clock = utc_now) -> AsyncIterator[Desk]:
    """Open database, keys and trail; the trail's records go where the server's go.

    Raises:
        KeyMaterialInvalid, OSError: the keys cannot be read.
    """
    keys = site_keys(settings)
    engine = create_engine(settings.database_url, timeout=_PATIENCE)
    signer = site_signer(settings)
    trail = AuditTrail(settings.database_url, settings.var_dir / "spool", signer=signer)
    await trail.start()
    try:
        yield Desk(settings, engine, keys, Pseudonymiser(keys.pseudonym), trail, now)
    finally:
        await trail.close()
        await engine.dispose()


def _text(value: str | int | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
