"""``cds-server simulate``: simulated patients as a dataset, as FHIR, or just counted.

Arguments, messages and exit status only.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="simulate", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)


@app.command()
def simulate(
    patients: Annotated[
        int, typer.Option("--patients", "-n", min=0, help="Patients simulated (as rows).")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same patients.")] = 1,
    parquet: Annotated[
        Path | None,
        typer.Option("--parquet", help="Write the rows as a dataset, for `cds-server train --dataset`."),
    ] = None,
    fhir: Annotated[int, typer.Option("--fhir", min=0, help="Patients also written as FHIR R4.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where FHIR goes: FILE.ndjson (one Bundle a line), or a folder for a bulk export by "
            "resource type with the diagnosis of every visit, as `cds-server dataset` reads it.",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over an existing dataset.")] = False,
) -> None:
    """Simulate patients of the knowledge base.

    For example: cds-server simulate --fhir 500 --out var/export
    """
    # Late: listing the commands stays quick.
    from rich.console import Console  # noqa: PLC0415

    from training.datasets.format import DatasetExists  # noqa: PLC0415
    from training.ensemble.cohort import Simulator  # noqa: PLC0415
    from training.simulated_output import count_patients, write_fhir  # noqa: PLC0415

    if bool(fhir) != (out is not None):
        typer.echo("--fhir N and --out PATH go together: how many patients, and where to.", err=True)
        raise typer.Exit(2)
    console = Console(stderr=True)
    simulator = Simulator.load()
    try:
        if parquet is not None:
            from training.datasets.simulated import write_simulated  # noqa: PLC0415

            info = write_simulated(
                simulator,
                patients,
                seed,
                parquet,
                created=datetime.now(UTC),
                console=console,
                replace=replace,
            )
            typer.echo(f"{parquet}: {sum(info.rows.values()):,} rows, digest {info.digest[:12]}")
        elif patients and out is None:
            for line in count_patients(simulator, patients, seed, console):
                typer.echo(line)
        if out is not None:
            resources = write_fhir(simulator, fhir, seed, out, console)
            typer.echo(f"{out}: {fhir:,} patients, {resources:,} resources")
    except DatasetExists as fault:
        typer.echo(f"Nothing was written: {fault} (--replace writes over it)", err=True)
        raise typer.Exit(1) from None
    except OSError as fault:
        typer.echo(f"{fault.filename or parquet or out} cannot be written: {fault.strerror}", err=True)
        raise typer.Exit(1) from None
