"""``cds-server dataset``: real records as a training dataset, from a FHIR bulk export or a CSV file.

Arguments, messages and exit status only.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from training.datasets.format import DatasetInfo

app = typer.Typer(
    name="dataset",
    help="Training datasets from real records: build one, see what is in it (docs/training-data.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
OutArgument = Annotated[Path, typer.Argument(help="Directory of the dataset to write.")]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="File with 16 bytes or more that make the pseudonyms, and so splits and digest, the same again; "
        "by default they are random and forgotten.",
        dir_okay=False,
    ),
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Write over an existing dataset.")]
_MOST_SHOWN = 20


@app.command()
def fhir(
    export: Annotated[Path, typer.Argument(help="Folder of NDJSON files by resource type.")],
    out: OutArgument,
    decision_hours: Annotated[
        float, typer.Option("--decision-hours", min=0, max=168, help="After the start the chart is read.")
    ] = 6.0,
    window_days: Annotated[
        float, typer.Option("--window-days", min=0, max=365, help="After the visit a diagnosis counts.")
    ] = 30.0,
    follow_ups: Annotated[
        bool,
        typer.Option("--follow-ups", help="Take the diagnosis of a later visit where there is no other."),
    ] = False,
    key_file: KeyOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Build a dataset from a FHIR bulk export.

    For example: cds-server dataset fhir export/ var/datasets/site --key-file ~/keys/pseudonyms
    """
    # Late: listing the commands stays quick.
    from rich.console import Console  # noqa: PLC0415

    from training.datasets.context import DatasetContext  # noqa: PLC0415
    from training.datasets.fhir import build_from_ndjson  # noqa: PLC0415
    from training.datasets.format import DatasetExists, DatasetInvalid, InputUnreadable  # noqa: PLC0415
    from training.datasets.options import CohortOptions  # noqa: PLC0415

    options = CohortOptions(decision_hours=decision_hours, window_days=window_days, follow_ups=follow_ups)
    try:
        info = build_from_ndjson(
            export,
            out,
            DatasetContext.load(),
            created=datetime.now(UTC),
            options=options,
            key=_key(key_file),
            console=Console(stderr=True),
            replace=replace,
        )
    except (InputUnreadable, DatasetExists, DatasetInvalid) as fault:
        _fail(f"Nothing was built: {fault}")
    except OSError as fault:
        _fail(f"{fault.filename or export} cannot be used: {fault.strerror}")
    _report(out, info)


@app.command("csv")
def from_csv(
    table: Annotated[Path, typer.Argument(help="CSV file, one visit a row.", dir_okay=False)],
    out: OutArgument,
    mapping: Annotated[
        Path, typer.Option("--mapping", "-m", help="TOML file that says what each column is.", dir_okay=False)
    ],
    key_file: KeyOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Build a dataset from a CSV file with a mapping.

    For example: cds-server dataset csv visits.csv var/datasets/site --mapping visits.toml
    """
    # Late: listing the commands stays quick.
    from rich.console import Console  # noqa: PLC0415

    from training.datasets.context import DatasetContext  # noqa: PLC0415
    from training.datasets.format import DatasetExists, DatasetInvalid, InputUnreadable  # noqa: PLC0415
    from training.datasets.mapping import MappingInvalid, load_mapping  # noqa: PLC0415
    from training.datasets.table import build_from_csv  # noqa: PLC0415

    try:
        context = DatasetContext.load()
        info = build_from_csv(
            table,
            load_mapping(mapping, context.builder.tables.analytes),
            out,
            context,
            created=datetime.now(UTC),
            key=_key(key_file),
            console=Console(stderr=True),
            replace=replace,
        )
    except (MappingInvalid, InputUnreadable, DatasetExists, DatasetInvalid) as fault:
        _fail(f"Nothing was built: {fault}")
    except OSError as fault:
        _fail(f"{fault.filename or table} cannot be used: {fault.strerror}")
    _report(out, info)


@app.command()
def show(path: Annotated[Path, typer.Argument(help="Directory of a dataset.", file_okay=False)]) -> None:
    """What is in a dataset: rows, labels, diseases, and what was rejected for which reason."""
    from training.datasets.format import DatasetInvalid  # noqa: PLC0415 - listing the commands stays quick
    from training.datasets.load import read_info  # noqa: PLC0415

    try:
        info = read_info(path)
    except DatasetInvalid as fault:
        _fail(str(fault))
    _report(path, info)
    for disease, count in sorted(info.by_disease.items(), key=lambda row: -row[1])[:_MOST_SHOWN]:
        typer.echo(f"{count:>8,}  {disease}")
    if len(info.by_disease) > _MOST_SHOWN:
        typer.echo(f"          and {len(info.by_disease) - _MOST_SHOWN} more")


def _key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    key = path.read_bytes().strip()
    if len(key) < 16:
        _fail(f"{path.name}: the key has {len(key)} bytes; give 16 or more")
    return key


def _report(path: Path, info: "DatasetInfo") -> None:
    """Counts only: no value of a patient is shown."""
    rows, patients = (sum(counts.values()) for counts in (info.rows, info.patients))
    typer.echo(f"{path}: {rows:,} visits of {patients:,} patients, {len(info.by_disease)} diseases")
    labelled = ", ".join(f"{name} {count:,}" for name, count in info.labelled.items())
    typer.echo(f"labels: {labelled}; digest {info.digest[:12]}")
    for word, counts in (("rejected", info.rejects), ("left out of charts", info.left_out)):
        if counts:
            typer.echo(f"{word}: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.items()))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
