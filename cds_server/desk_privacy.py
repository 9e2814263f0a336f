"""Commands on one patient's data; `cds_server.cli_privacy` names their options."""

from pathlib import Path

import typer

from cds_server.cli_desk import NotDone
from cds_server.decisions.destruction import NOTHING, Destruction
from cds_server.decisions.erasures import Erasure, note, noted
from cds_server.decisions.export import export_person
from cds_server.decisions.holds import Holds
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.opening import Opener
from cds_server.decisions.person import Person
from cds_server.decisions.shelf import Shelf
from cds_server.desk_patient import Whom, find
from cds_server.feedback import FeedbackStore
from cds_server.operator import at_desk
from cds_server.privacy import Cipher
from cds_server.settings import Settings


async def export(settings: Settings, whom: Whom, path: Path) -> None:
    """Write the archive of one patient; `path` must be free."""
    async with at_desk(settings) as desk:
        pseudonyms = (await find(desk, whom, "patient-exported")).pseudonyms
        await desk.record("patient-exported", patient=pseudonyms[0], systems=_systems(whom))
        keys = DataKeys(desk.keys.master, now=desk.now)
        store = FeedbackStore(desk.trail, Cipher(desk.keys.cipher), keys, engine=desk.engine)
        done = await export_person(
            path,
            Person(desk.engine, pseudonyms),
            Opener(Shelf(desk.engine), keys),
            store,
            years=settings.retention_years,
        )
    typer.echo(
        f"{path}: {done.events} events, {done.decisions} decisions with their inputs, {done.not_kept} "
        f"without, {done.feedback} answers of clinicians. It is the patient's record in the clear."
    )


async def erase(settings: Settings, whom: Whom, *, confirmed: bool) -> None:
    """Destroy what is kept of one patient, after a question unless `confirmed`."""
    async with at_desk(settings) as desk:
        found = await find(desk, whom, "patient-erased")
        pseudonyms = found.pseudonyms
        holds = await Holds(desk.engine, Cipher(desk.keys.cipher)).on(pseudonyms, found.people)
        if holds:
            await desk.record(
                "patient-erased", patient=pseudonyms[0], status=409, result="refused", reason="legal-hold"
            )
            raise NotDone(
                f"Not erased: {len(holds)} legal hold(s) in force: see `cds-server retention hold list`."
            )
        destruction = Destruction(desk.engine)
        subjects = await destruction.subjects_of(pseudonyms)
        amount = await destruction.amount(subjects)
        typer.echo(
            f"Kept of this patient: {amount.decisions} decisions, {amount.keys} data keys. After this "
            "nobody can read or replay them."
        )
        if not confirmed and not typer.confirm("Destroy them?"):
            raise NotDone("Nothing was destroyed.")
        await desk.record(
            "patient-erased",
            patient=pseudonyms[0],
            result="ordered",
            systems=_systems(whom),
            keys=amount.keys,
            decisions=amount.decisions,
        )
        now = desk.now()
        note(settings.var_dir, Erasure(now, pseudonyms))
        gone = await destruction.erase(subjects, now)
        left = await destruction.scrub()
        await desk.record(
            "patient-erased",
            patient=pseudonyms[0],
            result="done",
            keys=gone.keys,
            decisions=gone.decisions,
        )
    typer.echo(f"Destroyed: {gone.keys} data keys, {gone.decisions} decisions.")
    if left:
        typer.echo(f"Still in the database's files: {left}.", err=True)
    typer.echo("Backups made before now still hold them; after restoring one: cds-server privacy reapply")


def _systems(whom: Whom) -> str:
    """How it was said which systems' patient is meant: by name, every one, or the only one there is."""
    return "named" if whom.servers else "every" if whom.every else "only"


async def reapply(settings: Settings) -> None:
    """Do the noted erasures again."""
    async with at_desk(settings) as desk:
        destruction = Destruction(desk.engine)
        known = noted(settings.var_dir)
        total = NOTHING
        await desk.record("patient-erased", result="reapplied", erasures=len(known))
        for erasure in known:
            subjects = await destruction.subjects_of(erasure.subjects)
            if await destruction.left(subjects, erasure.at):
                total += await destruction.erase(subjects, desk.now(), up_to=erasure.at)
        left = await destruction.scrub() if total != NOTHING else None
    typer.echo(
        f"{len(known)} erasures known; destroyed again: {total.keys} data keys, {total.decisions} decisions."
    )
    if left:
        typer.echo(f"Still in the database's files: {left}.", err=True)
