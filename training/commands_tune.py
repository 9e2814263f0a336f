"""``cds-server tune``: searches better settings for ``cds-server train``.

Arguments, messages and exit status only.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="tune", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def tune(
    trials: Annotated[int, typer.Option("--trials", "-t", min=1, help="Settings to try now.")] = 20,
    storage: Annotated[
        str,
        typer.Option(
            "--storage",
            envvar="CDS_OPTUNA_STORAGE",
            help="SQLAlchemy URL of the study; continued when it is there. Several processes, and with a "
            "database server several machines, may share it.",
        ),
    ] = "sqlite:///var/optuna/study.db",
    patients: Annotated[
        int, typer.Option("--patients", "-n", min=200, help="Simulated patients that settings are tried on.")
    ] = 24_000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 1,
    folds: Annotated[int, typer.Option("--folds", min=2)] = 3,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Cores used (default: 2).")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file to start from.", dir_okay=False)
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="TOML file for the best settings.", dir_okay=False)
    ] = Path("var/optuna/best.toml"),
) -> None:
    """Search settings of the ensemble; stop and continue at any time.

    For example: cds-server tune --trials 30, then: cds-server train --config var/optuna/best.toml ...
    """
    # Late: listing the commands stays quick.
    from rich.console import Console  # noqa: PLC0415

    from training.datasets.progress import bars  # noqa: PLC0415
    from training.ensemble.cohort import Simulator  # noqa: PLC0415
    from training.ensemble.config import EnsembleConfig  # noqa: PLC0415
    from training.ensemble.config_file import (  # noqa: PLC0415
        ConfigInvalid,
        config_toml,
        read_config,
        with_fields,
    )
    from training.tuning import StudyUnusable, best_config, open_study  # noqa: PLC0415
    from training.tuning import tune as search  # noqa: PLC0415

    given = {"patients": patients, "seed": seed, "folds": folds, "threads": threads}
    try:
        start = read_config(config) if config is not None else EnsembleConfig()
        small = with_fields(start, {name: value for name, value in given.items() if value is not None})
        simulator = Simulator.load()
        about = {
            "patients": patients,
            "seed": seed,
            "folds": folds,
            "knowledge": simulator.knowledge.digest,
        }
        study = open_study(storage, about, small)
    except (ConfigInvalid, StudyUnusable) as fault:
        typer.echo(f"Nothing was tried: {fault}", err=True)
        raise typer.Exit(1) from None
    with bars(Console(stderr=True)) as shown:
        bar = shown.start("Trials", trials)
        search(study, simulator, small, trials, lambda _: bar.advance())
    best = best_config(study, start)
    if best is None:
        typer.echo("No trial has finished: every one was given up or failed.", err=True)
        raise typer.Exit(1)
    figures = study.best_trial.user_attrs
    comment = (
        f"Best of {len(study.trials)} trials on {patients:,} simulated patients "
        f"(seed {seed}, {folds} folds): "
        f"log loss {figures['log_loss']:.4f}, critical recall {figures['recall']:.4f}."
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(config_toml(best, comment), encoding="utf-8")
    except OSError as fault:
        typer.echo(f"{out} cannot be written: {fault.strerror}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: {comment}")
