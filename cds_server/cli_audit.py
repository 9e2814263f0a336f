"""``cds-server audit ...``: ask the trail, export it, verify it, seal it.  Every use is itself recorded."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import AuditTrail, AuditUnavailable, Entity
from cds_server.audit.access import of_operator
from cds_server.audit.checkpoints import CheckpointFileInvalid, read_file
from cds_server.audit.fhir import audit_event
from cds_server.audit.reader import AuditReader, Page
from cds_server.audit.sealing import FILE, Sealer
from cds_server.audit.signing import PublicKeys
from cds_server.audit.verify import Report, Verifier, count_events
from cds_server.cli_settings import read_settings
from cds_server.clock import utc_now
from cds_server.db.engine import create_engine
from cds_server.errors import RequestMalformed
from cds_server.people import KnownAuthority, People, known_authorities
from cds_server.privacy import Cipher, DecryptionFailed, KeyMaterialInvalid, Pseudonymiser
from cds_server.settings import Settings
from cds_server.site_keys import site_keys, site_signer

audit_commands = typer.Typer(
    help="The audit trail: list, show, export, verify, make a checkpoint.", no_args_is_help=True
)
_T = TypeVar("_T")
_FAULTS = (
    SQLAlchemyError,
    OSError,
    KeyMaterialInvalid,
    CheckpointFileInvalid,
    AuditUnavailable,
    DecryptionFailed,
)

Conditions = Annotated[
    list[str] | None,
    typer.Argument(
        help="Search parameters as in FHIR: date=ge2026-11-01 patient=ID agent=URL action=R outcome=4 "
        "subtype=hook-call entity=REFERENCE."
    ),
]


@dataclass(frozen=True, slots=True)
class _Site:
    """What a command works with."""

    settings: Settings
    engine: AsyncEngine
    trail: AuditTrail
    sealer: Sealer
    reader: AuditReader
    pseudonymiser: Pseudonymiser
    cipher: Cipher

    async def people(self) -> People:
        """For finding the pseudonyms of a person by an id."""
        return await People.load(self.pseudonymiser, self.cipher, self.engine)


@audit_commands.command("list")
def list_(
    conditions: Conditions = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000, help="At most so many.")] = 20,
) -> None:
    """List events, newest first.  For example: cds-server audit list date=ge2026-11-01 outcome=4"""
    from cds_server.console.audit_page import line_of  # noqa: PLC0415 - only what is used is loaded
    from cds_server.fhir_api.audit_parameters import read_search  # noqa: PLC0415

    async def work(site: _Site) -> Page:
        asked = read_search(_pairs(conditions), await site.people())
        page = await site.reader.page(asked.question, count)
        await site.trail.record(of_operator("audit-searched", query=asked.query()))
        return page

    page = _run(work)
    table = Table("recorded (UTC)", "activity", "outcome", "client", "user", "patient", "id")
    for record in page.records:
        line = line_of(record)
        table.add_row(
            line.recorded,
            line.activity,
            f"{line.outcome} ({line.status})",
            line.client,
            line.user,
            line.patient,
            line.id,
        )
    Console().print(table)
    for event_id in page.unreadable:
        typer.echo(f"event {event_id} cannot be read: cds-server audit verify", err=True)
    if page.following is not None:
        typer.echo("There are older ones: narrow the dates, or export.")


@audit_commands.command()
def authorities() -> None:
    """List the systems whose patients' ids are in the trail, with what events call them."""

    async def work(site: _Site) -> list[KnownAuthority]:
        found = await known_authorities(site.engine, site.cipher)
        await site.trail.record(of_operator("audit-searched", query="authorities"))
        return found

    table = Table("FHIR server, or client", "assigning-authority in events", "since")
    for one in _run(work):
        table.add_row(one.name, one.digest, one.since.date().isoformat())
    Console().print(table)


@audit_commands.command()
def show(event_id: Annotated[str, typer.Argument(help="The event's id.")]) -> None:
    """Show one event as a FHIR AuditEvent."""

    async def work(site: _Site) -> str | None:
        found = await site.reader.one(event_id)
        entities = (Entity(f"AuditEvent/{event_id}"),) if found is not None else ()
        status = 404 if found is None else 200
        await site.trail.record(of_operator("audit-read", status=status, entities=entities))
        if found is None:
            return None
        resource = audit_event(found, base_url=site.settings.base_url)
        return msgspec.json.format(msgspec.json.encode(resource), indent=2).decode()

    found = _run(work)
    if found is None:
        _fail("There is no event of that id.", 1)
    typer.echo(found)


@audit_commands.command()
def export(
    out: Annotated[Path, typer.Argument(help="File to write; its name ends in .ndjson or .csv.")],
    conditions: Conditions = None,
) -> None:
    """Export events to a file: .ndjson holds FHIR AuditEvents, .csv one line an event."""
    from cds_server.console.endpoints import csv_lines, ndjson  # noqa: PLC0415 - only what is used is loaded
    from cds_server.fhir_api.audit_parameters import read_search  # noqa: PLC0415

    kind = out.suffix.removeprefix(".")
    if kind not in ("ndjson", "csv"):
        _fail("The name of the file must end in .ndjson or .csv.")

    async def work(site: _Site) -> int:
        asked = read_search(_pairs(conditions), await site.people())
        total = await site.reader.count(asked.question)
        detail = (("events", str(total)), ("format", kind))
        await site.trail.record(of_operator("audit-exported", query=asked.query(), detail=detail))
        with _progress("exporting", total) as advance, out.open("wb") as file:

            async def counted() -> AsyncIterator[Page]:
                async for page in site.reader.stream(asked.question):
                    yield page
                    advance(len(page.records) + len(page.unreadable))

            pages = counted()
            lines = csv_lines(pages) if kind == "csv" else ndjson(pages, site.settings.base_url)
            async for chunk in lines:
                file.write(chunk)
        return total

    typer.echo(f"{_run(work):,} events in {out}")


@audit_commands.command()
def verify(
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Take as verified what checkpoints before this moment (UTC) sealed.",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
        ),
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option("--public-key", help="PEM file of public keys; default: those in CDS_VAR_DIR/keys."),
    ] = None,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoints", help="File of checkpoints kept elsewhere; default: the one in CDS_VAR_DIR."
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(help="File of records the database refused; default: the one in the spool."),
    ] = None,
) -> None:
    """Verify the whole trail; exit code 1 and names when anything is not as it was recorded."""

    async def work(site: _Site) -> Report:
        var = site.settings.var_dir
        keys = PublicKeys.read(*public_key) if public_key else PublicKeys.of_directory(var / "keys")
        files = checkpoints or [path for path in (var / FILE,) if path.exists()]
        carried = [checkpoint for path in files for checkpoint in read_file(path)]
        aside = refused or var / "spool" / "refused.records"
        lines = aside.read_bytes().splitlines() if aside.exists() else []
        total = await count_events(site.engine)
        with _progress("verifying", total) as advance:
            report = await Verifier(
                site.engine,
                keys,
                carried=carried,
                refused=[hashlib.sha256(line).hexdigest() for line in lines],
                since=since.replace(tzinfo=UTC) if since else None,
                progress=advance,
            ).run()
        detail = (("events", str(report.events)), ("findings", str(len(report.findings))))
        await site.trail.record(of_operator("audit-verified", detail=detail))
        return report

    report = _run(work)
    for notice in report.notices:
        typer.echo(f"note: {notice}")
    for finding in report.findings:
        typer.echo(str(finding))
    newest = f"{report.newest_checkpoint:%Y-%m-%d %H:%M:%S}Z" if report.newest_checkpoint else "never"
    typer.echo(
        f"{report.events:,} events in {report.strands:,} strands, {report.checkpoints:,} checkpoints "
        f"(newest {newest}): " + ("the trail holds" if report.holds else f"{len(report.findings)} findings")
    )
    if not report.holds:
        raise typer.Exit(1)


@audit_commands.command()
def checkpoint() -> None:
    """Make a signed checkpoint now, of what no living process seals itself."""

    async def work(site: _Site) -> str:
        body = await site.sealer.seal(site.trail.strand)
        return "nothing new" if body is None else f"checkpoint {body.number}, {len(body.strands)} strands"

    typer.echo(_run(work))


@audit_commands.command("public-key")
def public_key_() -> None:
    """Print the public keys that checkpoints are verified with (PEM): to be kept elsewhere."""
    settings = read_settings()
    try:
        signer = site_signer(settings)
    except _FAULTS as fault:
        _fail(f"The keys cannot be read: {_reason(fault)}")
    typer.echo(signer.public.pem().decode(), nl=False)


def _run(work: Callable[[_Site], Awaitable[_T]]) -> _T:
    async def inside() -> _T:
        async with _site() as site:
            return await work(site)

    try:
        return asyncio.run(inside())
    except RequestMalformed as fault:
        _fail(fault.reason)
    except _FAULTS as fault:
        _fail(f"This cannot be done now: {_reason(fault)}")


@asynccontextmanager
async def _site() -> AsyncIterator[_Site]:
    """The trail as a process of its own: what it records is chained and sealed before it ends."""
    settings = read_settings()
    keys = site_keys(settings)
    signer = site_signer(settings)
    # A verification reads whole strands, and a count of millions takes its time.
    engine = create_engine(settings.database_url, timeout=600)
    interval = timedelta(seconds=settings.audit_checkpoint_seconds)
    sealer = Sealer(engine, signer, settings.var_dir, interval=interval, clock=utc_now)
    trail = AuditTrail(settings.database_url, settings.var_dir / "spool", signer=signer)
    try:
        await trail.start()
        try:
            pseudonymiser, cipher = Pseudonymiser(keys.pseudonym), Cipher(keys.cipher)
            yield _Site(settings, engine, trail, sealer, AuditReader(engine), pseudonymiser, cipher)
        finally:
            up = trail.state().database_up
            await trail.close()
            if up:
                await sealer.seal(trail.strand, closed=True)
    finally:
        await engine.dispose()


def _pairs(conditions: list[str] | None) -> list[tuple[str, str]]:
    pairs = []
    for condition in conditions or ():
        name, equals, value = condition.partition("=")
        if not equals:
            _fail("A condition looks like date=ge2026-11-01.")
        pairs.append((name, value))
    return pairs


class _progress:  # noqa: N801 used like a function
    """A progress bar on standard error; gives the function that advances it."""

    def __init__(self, what: str, total: int) -> None:
        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return lambda count: self._bar.advance(self._task, count)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _reason(fault: Exception) -> str:
    """Our own words whole; of others only the kind, for they may quote what was asked."""
    ours = isinstance(fault, KeyMaterialInvalid | CheckpointFileInvalid | AuditUnavailable)
    return str(fault) if ours else getattr(fault, "strerror", None) or type(fault).__name__


def _fail(message: str, code: int = 2) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
