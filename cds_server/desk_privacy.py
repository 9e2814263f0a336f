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
from cds_server.desk_patient import UNNAMED_SHOWN, Found, Whom, find
from cds_server.feedback import FeedbackStore
from cds_server.operator import Desk, at_desk
from cds_server.privacy import Cipher
from cds_server.settings import Settings


async def export(settings: Settings, whom: Whom, path: Path) -> None:
    """Write the archive of one patient; `path` must be free."""
    async with at_desk(settings) as desk:
        found = await find(desk, whom, "patient-exported")
        for one in found.told:
            await desk.record("patient-exported", patient=one, systems=_systems(whom))
        # What was kept before pseudonyms told systems apart says in its requests whose it is.
        by_request = bool(whom.servers) and UNNAMED_SHOWN not in found.systems
        servers = frozenset(found.systems) if by_request else None
        former = desk.pseudonymiser.persons("patient", whom.id) if by_request else ()
        keys = DataKeys(desk.keys.master, now=desk.now)
        store = FeedbackStore(desk.trail, Cipher(desk.keys.cipher), keys, engine=desk.engine)
        done = await export_person(
            path,
            Person(desk.engine, (*found.subjects, *former)),
            Opener(Shelf(desk.engine), keys),
            store,
            servers=servers,
            years=settings.retention_years,
        )
    typer.echo(
        f"{path}: {done.events} events, {done.decisions} decisions with their inputs, {done.not_kept} "
        f"without, {done.feedback} answers of clinicians. It is the patient's record in the clear."
    )
    if done.unclear:
        typer.echo(
            f"Left out: {done.unclear} events under this id that do not say of which system "
            "(`--server unnamed`)."
        )
    _say_left(found)


async def erase(settings: Settings, whom: Whom, *, confirmed: bool) -> None:
    """Destroy what is kept of one patient, after a question unless `confirmed`."""
    async with at_desk(settings) as desk:
        destruction = Destruction(desk.engine)
        found = await _erasable(desk, whom)
        amount = await destruction.amount(await destruction.subjects_of(found.subjects))
        typer.echo(
            f"Kept of this patient: {amount.decisions} decisions, {amount.keys} data keys. After this "
            "nobody can read or replay them."
        )
        if not confirmed:
            if not typer.confirm("Destroy them?"):
                raise NotDone("Nothing was destroyed.")
            found = await _erasable(desk, whom)  # calls went on meanwhile, and a hold may have been placed
        for one in found.told:
            await desk.record(
                "patient-erased",
                patient=one,
                result="ordered",
                systems=_systems(whom),
                keys=amount.keys,
                decisions=amount.decisions,
            )
        now = desk.now()
        note(settings.var_dir, Erasure(now, found.subjects))
        gone = await destruction.erase_all(found.subjects, now)
        left = await destruction.scrub()
        for one in found.told:
            await desk.record(
                "patient-erased", patient=one, result="done", keys=gone.keys, decisions=gone.decisions
            )
        waiting = desk.trail.state().spool_depth
    typer.echo(f"Destroyed: {gone.keys} data keys, {gone.decisions} decisions.")
    if left:
        typer.echo(f"Still in the database's files: {left}.", err=True)
    if waiting:
        typer.echo(
            f"{waiting} records wait in the spool: what of them is this patient's is not stored.", err=True
        )
    _say_left(found)
    typer.echo("Backups made before now still hold them; after restoring one: cds-server privacy reapply")


async def _erasable(desk: Desk, whom: Whom) -> Found:
    """Who is meant, when no hold protects any of them.  Raises `NotDone`, recorded."""
    found = await find(desk, whom, "patient-erased")
    holds = await Holds(desk.engine, Cipher(desk.keys.cipher)).on(found.subjects, desk.pseudonymiser)
    if holds:
        for one in found.told:
            await desk.record(
                "patient-erased", patient=one, status=409, result="refused", reason="legal-hold"
            )
        raise NotDone(
            f"Not erased: {len(holds)} legal hold(s) in force: see `cds-server retention hold list`."
        )
    return found


def _say_left(found: Found) -> None:
    """What somebody may have forgotten to name."""
    if found.left:
        typer.echo(f"Not touched: what is kept under this id of {', '.join(found.left)}.")


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
            # Also where nothing is left: the order stands against what a spool may still bring.
            total += await destruction.erase_all(erasure.subjects, desk.now(), up_to=erasure.at)
        left = await destruction.scrub() if total != NOTHING else None
    typer.echo(
        f"{len(known)} erasures known; destroyed again: {total.keys} data keys, {total.decisions} decisions."
    )
    if left:
        typer.echo(f"Still in the database's files: {left}.", err=True)
