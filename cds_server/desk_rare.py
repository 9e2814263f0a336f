"""Erasing an enrolled case at the command line, and being told of cases where a patient's data is the matter.

`cds_server.cli_rare` names the options.
"""

import asyncio

import typer

from cds_server.cli_desk import NotDone
from cds_server.operator import at_desk
from cds_server.privacy import Cipher
from cds_server.rare.record import FILE, EnrolmentInvalid, read_record
from cds_server.rare.store import EnrolmentStore
from cds_server.settings import Settings


async def erase(settings: Settings, enrolment: str, *, confirmed: bool) -> None:
    """Erase one enrolment, after a question unless `confirmed`; what is done is recorded first."""
    async with at_desk(settings) as desk:
        store = EnrolmentStore(settings.var_dir, Cipher(desk.keys.cipher))
        try:
            named = {entry.id for entry, _ in store.states() if entry.sealed}
        except EnrolmentInvalid as fault:
            raise NotDone(f"Nothing was erased: {fault}.") from None
        if enrolment not in named:
            raise NotDone(
                "Nothing was erased: no such enrolment, or it was erased already: see `cds-server rare list`."
            )
        if not confirmed and not typer.confirm(f"Erase {enrolment} for good?"):
            raise NotDone("Nothing was erased.")
        await desk.record("case-erased", entity=enrolment, result="ordered")
        try:
            await asyncio.to_thread(store.erase, enrolment, desk.now())
        except EnrolmentInvalid as fault:
            await desk.record("case-erased", entity=enrolment, status=500, result="failed")
            raise NotDone(f"Nothing was erased: {fault}.") from None
        await desk.record("case-erased", entity=enrolment, result="done")
    typer.echo(f"{enrolment}: erased. Running servers forget it within CDS_MODEL_RELOAD_SECONDS.")
    typer.echo(
        "Answers given while it counted cannot be replayed any more. After an older copy of the record"
    )
    typer.echo("was put back: erase again. Answers kept of other patients may name findings of it.")


def remind(settings: Settings) -> None:
    """Say that enrolled cases name no patient, where there are any: no command finds whose they are."""
    try:
        record = read_record(settings.var_dir / FILE)
    except EnrolmentInvalid as fault:
        typer.echo(f"Enrolled cases were not looked at: {fault}.", err=True)
        return
    held = sum(bool(entry.sealed) for entry in record.entries)
    if held or record.damaged:
        typer.echo(
            f"Not reached: enrolled cases of rare diseases ({held}), which name no patient. If one is of "
            "this patient: cds-server rare erase ID"
        )
