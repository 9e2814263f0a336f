"""Retention, legal holds and rewrapping; `cds_server.cli_retention` names their options."""

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cds_server.cli_desk import NotDone
from cds_server.decisions.destruction import NOTHING, Destruction
from cds_server.decisions.holds import Hold, Holds
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.retention import cutoff
from cds_server.decisions.rewrap import rewrap_all, waiting
from cds_server.desk_patient import UNNAMED_SHOWN, Whom, hold_of
from cds_server.operator import at_desk
from cds_server.privacy import Cipher, Pseudonymiser
from cds_server.settings import Settings

_console = Console()
_progress = Console(stderr=True)


async def run_retention(settings: Settings, *, dry_run: bool) -> None:
    """Destroy what is too old and not held."""
    async with at_desk(settings) as desk:
        now = desk.now()
        before = cutoff(now, settings.retention_years)
        holds = await Holds(desk.engine, Cipher(desk.keys.cipher)).in_force()
        destruction = Destruction(desk.engine)
        named = sorted({one for hold in holds for one in hold.subjects(desk.pseudonymiser)})
        held = await destruction.subjects_of(named)
        free, kept, keys = await destruction.expired(before, held)
        table = Table(
            title=f"Older than {before.date()} ({settings.retention_years} years)", title_justify="left"
        )
        for heading in ("decisions to destroy", "decisions under legal hold", "data keys of that age"):
            table.add_column(heading, justify="right")
        table.add_row(f"{free:,}", f"{kept:,}", f"{keys:,}")
        _console.print(table)
        if dry_run:
            return
        until = before.date().isoformat()
        await desk.record("retention-purged", result="ordered", before=until, decisions=free, held=kept)
        gone = NOTHING
        with Progress(console=_progress) as bar:
            task = bar.add_task("Destroying", total=free + keys)
            async for part in destruction.expire(before, held, now):
                gone += part
                bar.advance(task, part.keys + part.decisions)
            bar.update(task, completed=free + keys)
        left = await destruction.scrub()
        await desk.record(
            "retention-purged", result="done", before=until, decisions=gone.decisions, keys=gone.keys
        )
    typer.echo(f"Destroyed: {gone.decisions} decisions, {gone.keys} data keys.")
    if left:
        typer.echo(f"Still in the database's files: {left}.", err=True)


async def place(
    settings: Settings,
    *,
    patient: str | None,
    server: str | None,
    pseudonym: str | None,
    reason: str,
    by: str,
) -> str:
    """Place a hold; returns its id."""
    async with at_desk(settings) as desk:
        # Of an id alone every system's patient is held: too much held is mended by lifting.
        identity = Whom(patient).id if patient is not None else None
        authority = None
        if identity is not None and server is not None:
            authority, pseudonym = await hold_of(desk, Whom(identity), server)
            identity = identity if pseudonym is None else None
        whom = pseudonym or desk.pseudonymiser.pseudonym("patient", identity or "", authority or "")
        await desk.record("hold-placed", patient=whom)
        return await Holds(desk.engine, Cipher(desk.keys.cipher)).place(
            patient=identity, authority=authority, pseudonym=pseudonym, reason=reason, by=by, now=desk.now()
        )


async def lift(settings: Settings, hold: str, *, reason: str, by: str) -> None:
    """Lift a hold."""
    async with at_desk(settings) as desk:
        holds = Holds(desk.engine, Cipher(desk.keys.cipher))
        lifted = next((one for one in await holds.in_force() if one.hold_id == hold), None)
        if lifted is None:
            raise NotDone(f"No hold {hold} is in force.")
        await desk.record("hold-lifted", patient=_whom(lifted, desk.pseudonymiser), hold=hold)
        await holds.lift(lifted, reason=reason, by=by, now=desk.now())
    typer.echo("Lifted.")


def _whom(hold: Hold, pseudonymiser: Pseudonymiser) -> str:
    """The pseudonym under the newest key of whom a hold is on."""
    if hold.patient is None:
        return hold.pseudonym or ""
    return pseudonymiser.pseudonym("patient", hold.patient, hold.authority or "")


async def list_holds(settings: Settings) -> None:
    """Show the holds in force."""
    async with at_desk(settings) as desk:
        found = await Holds(desk.engine, Cipher(desk.keys.cipher)).in_force()
        table = Table(title="Legal holds in force", title_justify="left")
        for heading in ("hold", "placed", "patient (pseudonym)", "of", "reason", "by"):
            table.add_column(heading, overflow="fold")
        for hold in found:
            whom = _whom(hold, desk.pseudonymiser)
            of = (
                ""
                if hold.pseudonym
                else "every system"
                if hold.authority is None
                else hold.authority or UNNAMED_SHOWN
            )
            table.add_row(hold.hold_id, hold.placed.date().isoformat(), whom, of, hold.reason, hold.by)
    _console.print(table)


async def rewrap(settings: Settings) -> None:
    """Wrap the data keys anew."""
    async with at_desk(settings) as desk:
        current = desk.keys.master.current
        total = await waiting(desk.engine, current)
        await desk.record("keys-changed", purpose="master", result="rewrapping", to=current, keys=total)
        done = 0
        with Progress(console=_progress) as bar:
            task = bar.add_task("Wrapping anew", total=total)
            async for count in rewrap_all(desk.engine, DataKeys(desk.keys.master, now=desk.now), current):
                done += count
                bar.advance(task, count)
        spooled = desk.trail.state().spool_depth
    typer.echo(f"{done} data keys are wrapped under master key {current}.")
    if spooled:
        typer.echo(f"{spooled} records wait in the spool: run this again before a key is removed.", err=True)
