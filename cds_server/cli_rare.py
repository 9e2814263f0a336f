"""``cds-server rare ...``: enrol confirmed cases of rare diseases, take them back, erase them, list them."""

from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer

from cds_server.cli_desk import run
from cds_server.cli_settings import read_settings
from cds_server.privacy import Cipher, KeyMaterialInvalid
from cds_server.rare.record import EnrolmentInvalid
from cds_server.rare.store import EnrolmentStore
from cds_server.site_keys import site_keys

rare_commands = typer.Typer(
    help="Rare diseases: enrol confirmed cases, so that the next one is found; undo; list.",
    no_args_is_help=True,
)


@rare_commands.command()
def enroll(
    disease: Annotated[str, typer.Argument(help="OMIM:... or ORPHA:... id, or a name of the site's own.")],
    observed: Annotated[
        list[str], typer.Option("--observed", "-o", help="HPO id of a finding present; may be repeated.")
    ],
    excluded: Annotated[
        list[str] | None,
        typer.Option("--excluded", "-x", help="HPO id of a finding denied; may be repeated."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What people call a disease of the site's own.")] = "",
) -> None:
    """Enrol one confirmed case: its disease sharpens, or becomes known.  No retraining; reversible.

    For example: cds-server rare enroll OMIM:148600 -o HP:0007530 -o HP:0045059 -x HP:0001595
    """
    from fhir_adapters.hpo import load_ontology  # noqa: PLC0415 - listing commands stays quick
    from models.rare.enrolment import EnrolledCase  # noqa: PLC0415
    from models.rare.phenotype import Phenotype  # noqa: PLC0415

    ontology = load_ontology()
    for term in (*observed, *(excluded or ())):
        if (current := ontology.canonical(term)) is None or not ontology.is_phenotype(current):
            _fail(f"Nothing was enrolled: {term[:20]!r} is no finding of HPO {ontology.version}.")
    case = EnrolledCase(disease, Phenotype(tuple(observed), tuple(excluded or ())), "", name)
    try:
        new = _store().enroll(case, datetime.now(UTC))
    except (EnrolmentInvalid, KeyMaterialInvalid) as fault:
        _fail(f"Nothing was enrolled: {fault}")
    _record("case-enrolled", new)
    typer.echo(f"{new}: {disease}; undo with: cds-server rare undo {new}")
    typer.echo("Running servers of this CDS_VAR_DIR count it within CDS_MODEL_RELOAD_SECONDS.")


@rare_commands.command()
def undo(enrolment: Annotated[str, typer.Argument(help="As `enroll` and `list` print it.")]) -> None:
    """Take an enrolment back; the record keeps that it was there."""
    try:
        _store().undo(enrolment, datetime.now(UTC))
    except (EnrolmentInvalid, KeyMaterialInvalid) as fault:
        _fail(f"Nothing was undone: {fault}")
    _record("case-undone", enrolment)
    typer.echo(f"{enrolment}: undone")


@rare_commands.command()
def erase(
    enrolment: Annotated[str, typer.Argument(help="As `enroll` and `list` print it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Erase a case for good (GDPR Art. 17), whether it counts or was undone.  Recorded in the audit trail.

    Answers given while it counted cannot be replayed any more.
    """
    from cds_server import desk_rare  # noqa: PLC0415 - only this command pays for it

    run(lambda settings: desk_rare.erase(settings, enrolment, confirmed=yes))


@rare_commands.command("list")
def list_() -> None:
    """List all enrolments, undone and erased ones too."""
    try:
        store = _store()
        found, history = store.all(), store.states()
    except (EnrolmentInvalid, KeyMaterialInvalid) as fault:
        _fail(f"The record cannot be shown: {fault}")
    for each in found:
        phenotype = each.case.phenotype
        state = "counts" if each.active else "undone"
        typer.echo(
            f"{each.id}  {each.at}  {state}  {each.case.disease}  "
            f"{len(phenotype.observed)} findings present, {len(phenotype.excluded)} denied"
        )
    erased = [entry for entry, _ in history if entry.action == "erase"]
    for entry in erased:
        typer.echo(f"{entry.id}  {entry.at}  erased")
    if not found and not erased:
        typer.echo("No case is enrolled.")


@rare_commands.command()
def states() -> None:
    """List every change with the id that answers given after it carry, to find what an answer knew.

    The audit's knowledge id ends in this id; `cds-server replay` computes with just these cases.
    """
    try:
        found = _store().states()
    except (EnrolmentInvalid, KeyMaterialInvalid) as fault:
        _fail(f"The record cannot be shown: {fault}")
    for line, (entry, identity) in enumerate(found, start=1):
        told = "with a case that was erased since" if identity is None else identity or "no case counts"
        typer.echo(f"{line}  {entry.at}  {entry.action}  {entry.id}  {told}")
    if not found:
        typer.echo("No case is enrolled.")


def _record(activity: str, enrolment: str) -> None:
    """It changes what the server answers, so it is in the trail; by its id, which names nobody."""
    from cds_server.audit import Entity  # noqa: PLC0415 - listing commands stays quick
    from cds_server.audit.access import of_operator  # noqa: PLC0415
    from cds_server.desk_keys import record_afterwards  # noqa: PLC0415

    record_afterwards(read_settings(), [of_operator(activity, entities=(Entity(enrolment),))])


def _store() -> EnrolmentStore:
    settings = read_settings()
    try:
        keys = site_keys(settings)
    except OSError as fault:
        raise EnrolmentInvalid(f"the site's keys cannot be read: {fault.strerror}") from None
    return EnrolmentStore(settings.var_dir, Cipher(keys.cipher))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
