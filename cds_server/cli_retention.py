"""``cds-server retention ...``: how long what was kept is kept; and ``keys rewrap``."""

from typing import Annotated

import typer

from cds_server.cli_desk import run

retention_commands = typer.Typer(
    help="How long inputs and answers are kept: destroy what is too old, place and lift legal holds.",
    no_args_is_help=True,
)
hold_commands = typer.Typer(help="Legal holds: what is held is not destroyed.", no_args_is_help=True)
retention_commands.add_typer(hold_commands, name="hold")


@retention_commands.command("run")
def run_retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be destroyed.")] = False,
) -> None:
    """Destroy inputs and answers that are older than CDS_RETENTION_YEARS and not held.

    May be broken off and run again.  Audit events are never deleted (docs/privacy.md).
    """

    from cds_server import desk_retention  # noqa: PLC0415 - only this command pays for it

    run(lambda settings: desk_retention.run_retention(settings, dry_run=dry_run))


@hold_commands.command()
def place(
    reason: Annotated[str, typer.Option("--reason", help="Why; stored encrypted.")],
    by: Annotated[str, typer.Option("--by", help="Who ordered it; stored encrypted.")],
    patient: Annotated[str | None, typer.Option("--patient", help="Patient.id of the EHR.")] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", help="Only the patient of this FHIR server (default: of every one)."),
    ] = None,
    pseudonym: Annotated[
        str | None, typer.Option("--pseudonym", help="Instead: the pseudonym in an audit event.")
    ] = None,
) -> None:
    """Place a hold: until it is lifted, nothing of this patient is destroyed."""
    if (patient is None) == (pseudonym is None):
        typer.echo("Name the patient by --patient or by --pseudonym.", err=True)
        raise typer.Exit(2)

    from cds_server import desk_retention  # noqa: PLC0415 - only this command pays for it

    placed = run(
        lambda settings: desk_retention.place(
            settings, patient=patient, server=server, pseudonym=pseudonym, reason=reason, by=by
        )
    )
    typer.echo(f"Placed: hold {placed}")


@hold_commands.command()
def lift(
    hold: Annotated[str, typer.Argument(help="Id of the hold.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; stored encrypted.")],
    by: Annotated[str, typer.Option("--by", help="Who ordered it; stored encrypted.")],
) -> None:
    """Lift a hold."""

    from cds_server import desk_retention  # noqa: PLC0415 - only this command pays for it

    run(lambda settings: desk_retention.lift(settings, hold, reason=reason, by=by))


@hold_commands.command("list")
def list_holds() -> None:
    """List the holds in force, with reasons and pseudonyms."""

    from cds_server import desk_retention  # noqa: PLC0415 - only this command pays for it

    run(desk_retention.list_holds)


def rewrap() -> None:
    """Wrap all data keys under the current master key, after it was rotated and the servers restarted."""

    from cds_server import desk_retention  # noqa: PLC0415 - only this command pays for it

    run(desk_retention.rewrap)
