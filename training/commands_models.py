"""``cds-server models``: what was trained, and which of it is in use.

Arguments, messages and exit status only.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from training.commands_train import MlflowOption

app = typer.Typer(
    name="models",
    help="The registry of trained models: list versions, show one, put one in use.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command("list")
def list_versions(mlflow: MlflowOption = None) -> None:
    """All versions, oldest first, with their aliases and figures."""
    # Late: listing the commands stays quick.
    from training.registry.store import RegistryUnavailable, Store  # noqa: PLC0415
    from training.registry.versions import versions  # noqa: PLC0415

    try:
        found = versions(Store.open(mlflow))
    except RegistryUnavailable as fault:
        _fail(str(fault))
    if not found:
        typer.echo("No version is registered yet: `cds-server train` makes the first.")
        return
    wide = max(len(one.bundle) for one in found)
    typer.echo(f"{'':>4}  {'alias':<21}  {'bundle':<{wide}}  trained           top-1   recall  knowledge")
    for one in found:
        tags = one.tags
        typer.echo(
            f"{one.number:>4}  {', '.join(one.aliases):<21}  {one.bundle:<{wide}}  "
            f"{one.created:%Y-%m-%d %H:%M}  {tags.get('top1', ''):<6}  "
            f"{tags.get('critical_recall', ''):<6}  {tags.get('knowledge', '')[:12]}"
        )


@app.command()
def show(
    version: Annotated[str, typer.Argument(help="A number, 'champion' or 'challenger'.")] = "champion",
    card: Annotated[bool, typer.Option("--card", help="Print the model card instead.")] = False,
    mlflow: MlflowOption = None,
) -> None:
    """Parameters, figures and origin of a version."""
    import tempfile  # noqa: PLC0415 - listing the commands stays quick

    from training.registry.store import RegistryUnavailable, Store  # noqa: PLC0415
    from training.registry.versions import VersionUnknown, fetch, find  # noqa: PLC0415

    try:
        store = Store.open(mlflow)
        found = find(store, version)
    except (RegistryUnavailable, VersionUnknown) as fault:
        _fail(str(fault))
    if card:
        with tempfile.TemporaryDirectory() as scratch:
            typer.echo((fetch(store, found, Path(scratch)) / "model_card.md").read_text(encoding="utf-8"))
        return
    data = store.client.get_run(found.run).data
    typer.echo(f"version {found.number} ({', '.join(found.aliases) or 'no alias'}): {found.bundle}")
    typer.echo(f"run {found.run}, {found.created:%Y-%m-%d %H:%M} UTC")
    for name, value in sorted(data.params.items()):
        typer.echo(f"  {name} = {value}")
    for name, figure in sorted(data.metrics.items()):
        typer.echo(f"  {name}: {figure:.4f}")


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A number, or 'challenger'.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            envvar="CDS_MODEL_BUNDLE",
            help="Where the server looks for its bundle: a directory, or a file ending in .zip.",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            envvar="CDS_TRUSTED_MODEL_KEYS",
            help="File of the keys that the server trusts (default: the product's own).",
        ),
    ] = None,
    mlflow: MlflowOption = None,
) -> None:
    """Make a version the champion and put it where the server looks; it takes it up while running.

    For example: cds-server models promote challenger --to /srv/models/live
    """
    from models.bundle_files import BundleInvalid  # noqa: PLC0415 - listing the commands stays quick
    from models.bundle_seal import KeysInvalid, read_trusted_keys  # noqa: PLC0415
    from training.evaluation.run import SHIPPED_KEYS  # noqa: PLC0415
    from training.registry.store import RegistryUnavailable, Store  # noqa: PLC0415
    from training.registry.versions import VersionUnknown, find  # noqa: PLC0415
    from training.registry.versions import promote as put_in_use  # noqa: PLC0415

    if to is None or str(to) == "none":
        typer.echo("--to PATH or CDS_MODEL_BUNDLE must say where the server looks for its bundle.", err=True)
        raise typer.Exit(2)
    try:
        trusted = read_trusted_keys(keys or SHIPPED_KEYS)
        store = Store.open(mlflow)
        found = find(store, version)
        bundle = put_in_use(store, found, to, trusted, now=datetime.now(UTC))
    except (KeysInvalid, RegistryUnavailable, VersionUnknown, BundleInvalid) as fault:
        _fail(f"Nothing was promoted: {fault}")
    except OSError as fault:
        _fail(f"{fault.filename or to} cannot be written: {fault.strerror}")
    typer.echo(f"version {found.number} is the champion: {bundle.id} at {to}")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
