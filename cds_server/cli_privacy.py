"""``cds-server privacy ...``: one patient's data, for the data protection officer.

Every command that reads or destroys a patient's data is recorded in the audit trail before it does so.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cds_server.cli_desk import fail, run
from cds_server.cli_settings import read_settings

if TYPE_CHECKING:
    from cds_server.desk_patient import Whom

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


ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        help="Where several systems use one id: the FHIR server whose patient is meant (its base URL; or the "
        "client, the pseudonym, or `unnamed`). May be given more than once.",
    ),
]
EveryOption = Annotated[
    bool, typer.Option("--every-server", help="The same id at every FHIR server is one person.")
]


@privacy_commands.command()
def export(
    patient: PatientOption,
    server: ServerOption = None,
    every: EveryOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="The archive to write (default: patient-export-TIME.zip).")
    ] = None,
) -> None:
    """Write everything held of one patient into a zip archive, in the clear."""
    path = out or Path(f"patient-export-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip")
    if path.exists():
        fail(f"{path} exists already: name another file with --out.")

    from cds_server import desk_privacy, desk_rare  # noqa: PLC0415 - only this command pays for it

    run(lambda settings: desk_privacy.export(settings, _whom(patient, server, every=every), path))
    desk_rare.remind(read_settings())


@privacy_commands.command()
def erase(
    patient: PatientOption,
    server: ServerOption = None,
    every: EveryOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Destroy the data keys of one patient, and all that is sealed under them, for good.

    The audit events stay (pseudonyms and codes, no clinical values), so their chain stays verifiable.
    Refused while a legal hold is in force.
    """

    from cds_server import desk_privacy, desk_rare  # noqa: PLC0415 - only this command pays for it

    run(lambda settings: desk_privacy.erase(settings, _whom(patient, server, every=every), confirmed=yes))
    desk_rare.remind(read_settings())


@privacy_commands.command()
def reapply() -> None:
    """After a database was restored: do the erasures again that were made since that backup."""

    from cds_server import desk_privacy  # noqa: PLC0415 - only this command pays for it

    run(desk_privacy.reapply)


def _whom(patient: str, servers: list[str] | None, *, every: bool) -> "Whom":
    from cds_server.desk_patient import Whom  # noqa: PLC0415 - only these commands pay for it

    if servers and every:
        fail("Give --server or --every-server, not both.")
    return Whom(patient, tuple(servers or ()), every)
