"""``cds-server evaluate``: the report about a model bundle, by one command.

Arguments, messages and exit status only.  Hung below ``cds-server`` by the entry point
``evaluate = "training.evaluation.command:app"`` of the group ``cds_server.commands``.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from training.rare.commands import evaluate_rare

app = typer.Typer(
    name="evaluate", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)
RULES_ONLY = "none"


app.command("rare")(evaluate_rare)


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    bundle: Annotated[
        str,
        typer.Option(
            "--bundle",
            "-b",
            help="A model bundle, directory or .zip (default: the one shipped); 'none': the published rules.",
        ),
    ] = "",
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="File of trusted keys (default: the product's own)."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory for evaluation.html and evaluation.json.")
    ] = Path("var/evaluation"),
    patients: Annotated[
        int, typer.Option("--patients", "-n", min=0, help="Simulated patients; 0 leaves them out.")
    ] = 4000,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the simulated patients (default: one no training uses).")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Held-out predictions that training saved (.npz), in place of simulating.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    ablations: Annotated[
        Path | None,
        typer.Option(
            "--ablations",
            help="Held-out predictions that training saved (.npz): show their ablations.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    clinical: Annotated[
        Path | None,
        typer.Option("--clinical", help="Directory of the external sets (default: ../shared/clinical)."),
    ] = None,
    external: Annotated[
        bool, typer.Option("--external/--no-external", help="Measure on the external sets too.")
    ] = True,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown", help="Document to put the tables into, between its markers.", dir_okay=False
        ),
    ] = None,
) -> None:
    """Measure a model bundle on simulated patients and on the external sets, and write the report.

    For example: cds-server evaluate --markdown docs/ensemble-performance.md
    """
    if context.invoked_subcommand is not None:
        return
    # Late: listing the commands stays quick.
    from models.bundle_files import BundleInvalid  # noqa: PLC0415
    from models.bundle_seal import KeysInvalid  # noqa: PLC0415
    from training.evaluation import run  # noqa: PLC0415
    from training.evaluation.markdown import MarkersMissing  # noqa: PLC0415
    from training.evaluation.predictions import EvaluationDataInvalid  # noqa: PLC0415
    from training.evaluation.report import HTML_NAME, JSON_NAME, summary  # noqa: PLC0415
    from training.evaluation.simulated import SEED  # noqa: PLC0415

    named = Path(bundle) if bundle else run.SHIPPED_BUNDLE
    plan = run.Plan(
        out=out,
        now=datetime.now(UTC),
        bundle=None if bundle == RULES_ONLY else named,
        keys=keys or run.SHIPPED_KEYS,
        patients=patients,
        seed=SEED if seed is None else seed,
        predictions=predictions,
        ablations=ablations,
        clinical=(clinical or run.CLINICAL) if external else None,
        markdown=markdown,
    )
    try:
        report = run.evaluate(plan, say=lambda line: typer.echo(line, err=True))
    except (BundleInvalid, KeysInvalid, EvaluationDataInvalid, MarkersMissing) as fault:
        typer.echo(f"Nothing was evaluated: {fault}", err=True)
        raise typer.Exit(1) from None
    except OSError as fault:
        typer.echo(f"{fault.filename or out} cannot be used: {fault.strerror}", err=True)
        raise typer.Exit(1) from None
    for row in report["goals"]:
        if row["verdict"] == "missed":
            typer.echo(f"missed: {row['label']}: {row['value']:.3f}, to reach {row['reach']:g}")
    for note in report["notes"]:
        if "not measured" in note:
            typer.echo(note)
    typer.echo(f"{summary(report)}; {out / HTML_NAME}, {out / JSON_NAME}")
