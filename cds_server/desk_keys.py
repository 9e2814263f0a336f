"""What is recorded of keys that are made, rotated or retired at the command line."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import typer

from cds_server.audit import Access, AuditTrail, AuditUnavailable
from cds_server.audit.access import of_operator
from cds_server.audit.signing import PURPOSE
from cds_server.db.urls import is_sqlite, sqlite_path
from cds_server.privacy import KeyMaterialInvalid, key_files
from cds_server.settings import Settings
from cds_server.site_keys import site_signer


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What was done to a key: `result` is ``made``, ``rotated`` or ``retired``.

    `key` is its number, or what else names it in public; `place` says where it is: ``directory``, ``file``.
    """

    purpose: str
    result: str
    key: str
    place: str = "directory"


def record_keys(settings: Settings, changes: Sequence[KeyChange]) -> None:
    """Put it into the audit trail; says on standard error what keeps it from being there.

    The keys are made by then and stay.  Of the site's keys only the one that signs the trail is opened; where
    it is missing, and there is a database to record in, it is made.
    """
    record_afterwards(settings, [_event(change) for change in changes])


def record_afterwards(settings: Settings, events: Sequence[Access]) -> None:
    """Put what was done without a database into the audit trail, or say what keeps it from being there."""
    told = asyncio.run(_recorded(settings, events)) if events else None
    if told is not None:
        typer.echo(f"This is not in the audit trail: {told}.", err=True)


async def _recorded(settings: Settings, events: Sequence[Access]) -> str | None:
    """Why it is not in the trail, or `None`."""
    try:
        url = settings.database_url
        if is_sqlite(url) and not sqlite_path(url).exists():
            return "there is no database here yet (`cds-server db upgrade` makes it)"
        unsigned = settings.audit_signing_key is None and not key_files(settings.var_dir / "keys", PURPOSE)
        trail = AuditTrail(url, settings.var_dir / "spool", signer=site_signer(settings))
        if unsigned:
            typer.echo(f"{PURPOSE}: made key 1, which signs the record of this")
            events = [*events, _event(KeyChange(PURPOSE, "made", "1"))]
        await trail.start()
        try:
            await trail.record_all(events)
            if not trail.state().database_up:
                return (
                    "the database cannot be reached. The record waits in the spool of CDS_VAR_DIR for a "
                    "server that reaches it"
                )
        finally:
            await trail.close()
    except (AuditUnavailable, KeyMaterialInvalid, OSError, ValueError) as fault:
        return f"{type(fault).__name__}; run `cds-server db upgrade`, or look at CDS_VAR_DIR"
    return None


def _event(change: KeyChange) -> Access:
    return of_operator(
        "keys-changed",
        detail=(
            ("purpose", change.purpose),
            ("result", change.result),
            ("to", change.key),
            ("place", change.place),
        ),
    )
