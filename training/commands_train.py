"""``cds-server train``: from patients to a signed, registered model bundle, and a study beside it.

Arguments, messages and exit status only.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from training.rare.commands import train_rare

app = typer.Typer(name="train", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        envvar=["CDS_MLFLOW_URI", "MLFLOW_TRACKING_URI"],
        help="MLflow store; by default an embedded one in var/mlflow.",
    ),
]


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    patients: Annotated[
        int | None,
        typer.Option(
            "--patients", "-n", min=0, help="Simulated patients (default: 120,000); 0: datasets only."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="The same seed, the same figures.")
    ] = None,
    folds: Annotated[int | None, typer.Option("--folds", min=2, help="Folds (default: 5).")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Cores used (default: 2).")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="TOML file with settings, such as `cds-server tune` writes.",
            dir_okay=False,
        ),
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(
            "--dataset", "-d", help="Dataset directory to train on as well; may be repeated.", file_okay=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the bundle to write.", file_okay=False)
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", help="PEM file of the signing key (`cds-server bundle keys new`).", dir_okay=False
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Of the bundle (default: the registry's next).")
    ] = None,
    clinical: Annotated[
        Path | None,
        typer.Option(
            "--clinical", help="Directory of the external sets: measure on them for the model card."
        ),
    ] = None,
    mlflow: MlflowOption = None,
) -> None:
    """Train the common-disease ensemble, measure it, and write, sign and register the bundle.

    For example: cds-server train --out var/models/next --key ~/keys/signing_key.pem
    """
    if context.invoked_subcommand is not None:
        return
    if out is None or key is None:
        typer.echo(
            "--out DIRECTORY and --key FILE are needed: where the bundle goes, and who signs.", err=True
        )
        raise typer.Exit(2)
    # Late: listing the commands stays quick.
    from rich.console import Console  # noqa: PLC0415

    from models.bundle_seal import KeysInvalid, read_private_key  # noqa: PLC0415
    from training.datasets.format import DatasetInvalid  # noqa: PLC0415
    from training.ensemble.cohort import Simulator  # noqa: PLC0415
    from training.ensemble.config import EnsembleConfig  # noqa: PLC0415
    from training.ensemble.config_file import ConfigInvalid, read_config, with_fields  # noqa: PLC0415

    given = {"patients": patients, "seed": seed, "folds": folds, "threads": threads}
    try:
        settings = read_config(config) if config is not None else EnsembleConfig()
        settings = with_fields(settings, {name: value for name, value in given.items() if value is not None})
        private = read_private_key(key)
    except (ConfigInvalid, KeysInvalid) as fault:
        _fail(f"Nothing was trained: {fault}")

    from training.ensemble.assemble import TrainingDataInvalid  # noqa: PLC0415
    from training.pipeline import Plan, run_training  # noqa: PLC0415
    from training.registry.store import RegistryUnavailable, Store  # noqa: PLC0415
    from training.revision import code_revision  # noqa: PLC0415

    plan = Plan(
        config=settings,
        out=out,
        key=private,
        now=datetime.now(UTC),
        revision=code_revision(),
        datasets=tuple(dataset or ()),
        version=version,
        clinical=clinical,
    )
    try:
        store = Store.open(mlflow)
        outcome = run_training(plan, Simulator.load(), store, Console(stderr=True))
    except (RegistryUnavailable, TrainingDataInvalid, DatasetInvalid) as fault:
        _fail(f"Nothing was trained: {fault}")
    except OSError as fault:
        _fail(f"{fault.filename or out} cannot be used: {fault.strerror}")
    for name, value in outcome.figures.items():
        typer.echo(f"{name:>20}  {value:.4f}")
    aliases = ", ".join(outcome.version.aliases)
    typer.echo(f"{outcome.bundle.id}: {out}; version {outcome.version.number} in the registry ({aliases})")


@app.command("imbalance-study")
def imbalance(
    patients: Annotated[
        int, typer.Option("--patients", "-n", min=200, help="Simulated patients of the study.")
    ] = 40_000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 1,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with settings.")] = None,
) -> None:
    """Compare plain fitting, cost weights and oversampling for immediate attention, after calibration."""
    from rich.console import Console  # noqa: PLC0415

    from training.ensemble.cohort import Simulator  # noqa: PLC0415
    from training.ensemble.config import EnsembleConfig  # noqa: PLC0415
    from training.ensemble.config_file import ConfigInvalid, read_config, with_fields  # noqa: PLC0415
    from training.ensemble.imbalance import imbalance_study, table  # noqa: PLC0415

    try:
        settings = read_config(config) if config is not None else EnsembleConfig()
        settings = with_fields(settings, {"patients": patients, "seed": seed})
    except ConfigInvalid as fault:
        _fail(f"Nothing was compared: {fault}")
    typer.echo(table(imbalance_study(Simulator.load(), settings, Console(stderr=True))))


app.command("rare")(train_rare)


@app.command("calibration-study")
def calibration(
    heldout: Annotated[
        Path, typer.Option("--heldout", help="heldout.npz of a run (an artifact of it in MLflow).")
    ],
) -> None:
    """Compare temperature, isotonic regression and Venn-Abers on a run's held-out patients."""
    from training.evaluation.calibration_study import calibration_study, table  # noqa: PLC0415
    from training.evaluation.predictions import EvaluationDataInvalid, load_heldout  # noqa: PLC0415

    try:
        typer.echo(table(calibration_study(load_heldout(heldout))))
    except EvaluationDataInvalid as fault:
        _fail(f"Nothing was compared: {fault}")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
