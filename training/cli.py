"""The commands of training below ``cds-server``: one `typer.Typer` for each group.

Responsible for arguments, exit status and what is printed; the work is in the modules that each command
imports when it is called, so that listing the commands stays quick.  Each group is an entry point of the
group ``cds_server.commands``.
"""

from pathlib import Path
from typing import Annotated

import typer

from training.rare.commands import build_app

knowledge = typer.Typer(
    name="knowledge",
    help="The clinical knowledge base: check its files, see what it covers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
knowledge.add_typer(build_app, name="build")


@knowledge.command()
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Disease files (default: the whole knowledge base).", exists=True, dir_okay=False
        ),
    ] = None,
    find: Annotated[
        list[str] | None, typer.Option("--find", help="Look up how a finding is called; may be repeated.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="First fill HPO ids and labels of finding rows by name.")
    ] = False,
) -> None:
    """Show everything that is wrong with the disease files, each fault with its file and entry.

    For example: cds-server knowledge check models/knowledge/data/diseases/gout.toml
    """
    from models.knowledge.loader import KnowledgeInvalid  # noqa: PLC0415 - listing commands stays quick
    from training.knowledge_check import run  # noqa: PLC0415

    wrong = False
    try:
        for line, fault in run(files or (), find or (), fix):
            typer.echo(line)
            wrong = wrong or fault
    except KnowledgeInvalid as problem:  # a shared table, without which no file can be judged
        typer.echo(str(problem))
        wrong = True
    raise typer.Exit(1 if wrong else 0)


@knowledge.command()
def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.", dir_okay=False)] = Path(
        "knowledge.html"
    ),
) -> None:
    """Write coverage and evidence grades of the knowledge base as one self-contained HTML page."""
    from fhir_adapters.hpo import load_ontology  # noqa: PLC0415 - listing commands stays quick
    from models.knowledge.loader import KnowledgeInvalid, load_knowledge  # noqa: PLC0415
    from training.knowledge_report import report as page  # noqa: PLC0415

    try:
        text = page(load_knowledge(load_ontology()))
    except KnowledgeInvalid as problem:
        typer.echo(f"{problem}\nThe knowledge base is not valid; nothing was written.", err=True)
        raise typer.Exit(1) from None
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as problem:
        typer.echo(f"{out} cannot be written: {problem.strerror}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: {len(text) // 1024} KiB")
