"""``cds-server privacy ...``: one patient's data, for the data protection officer.

Every command that reads or destroys a patient's data is recorded in the audit trail before it does so.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cds_server.cli_desk import fail, run
from cds_server.cli_settings import read_settings

privacy_commands = typer.Typer(
    help="One patient's data: give it out (GDPR Art. 15), erase it (Art. 17).", no_args_is_help=True
)

PatientOption = Annotated[
    str,
    typer.Option(
        "--patient",
        prompt="Id of the patient (Patient.id of the EHR)",
        help="Patient.id; asked for if not given.",
    ),
]


@privacy_commands.command()
def export(
    patient: PatientOption,
    server: Annotated[
        str | None,
        typer.Option("--server", help="Only what came from this FHIR server, where two may use one id."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The archive to write (default: patient-export-TIME.zip).")
    ] = None,
) -> None:
    """Write everything held of one patient into a zip archive, in the clear."""
    path = out or Path(f"patient-export-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip")
    if path.exists():
        fail(f"{path} exists already: name another file with --out.")

    from cds_server import desk_privacy, desk_rare  # noqa: PLC0415 - only this command pays for it

    run(lambda settings: desk_privacy.export(settings, patient, server, path))
    desk_rare.remind(read_settings())


@privacy_commands.command()
def erase(
    patient: PatientOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Destroy the data keys of one patient, and all that is sealed under them, for good.

    The audit events stay (pseudonyms and codes, no clinical values), so their chain stays verifiable.
    Refused while a legal hold is in force.
    """

    from cds_server import desk_privacy, desk_rare  # noqa: PLC0415 - only this command pays for it

    run(lambda settings: desk_privacy.erase(settings, patient, confirmed=yes))
    desk_rare.remind(read_settings())


@privacy_commands.command()
def reapply() -> None:
    """After a database was restored: do the erasures again that were made since that backup."""

    from cds_server import desk_privacy  # noqa: PLC0415 - only this command pays for it

    run(desk_privacy.reapply)
