"""The `cds-server` command: start the server, send it a request, read the answer like a person.

Every subcommand uses the product's own line: `call --offline` and `assess` run the same application in
this process, with its database and its audit trail, only without a socket in between.
"""

import asyncio
import contextlib
import json
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import httpx
import typer

from cds_server.cli_aggregates import aggregates
from cds_server.cli_audit import audit_commands
from cds_server.cli_bundle import bundle_commands
from cds_server.cli_clients import clients_commands
from cds_server.cli_extra import CommandsWithExtras
from cds_server.cli_keys import keys_commands
from cds_server.cli_partitions import partitions
from cds_server.cli_privacy import privacy_commands
from cds_server.cli_rare import rare_commands
from cds_server.cli_replay import replay
from cds_server.cli_retention import retention_commands, rewrap
from cds_server.cli_roles import roles
from cds_server.cli_settings import read_settings
from cds_server.cli_views import show_assessment, show_cards, show_fault, show_services
from cds_server.settings import Settings
from cds_server.smart.commands import ehr_commands, smart_key_commands

app = typer.Typer(
    name="cds-server",
    cls=CommandsWithExtras,
    help=(
        "Clinical decision support over CDS Hooks. Start with: cds-server serve; then, in another terminal: "
        "cds-server call examples/sepsis.json. Settings come from CDS_* in the environment or a TOML file "
        "named by CDS_CONFIG; docs/operations.md lists them."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
db = typer.Typer(
    help="The database: create it, bring it up to date, look at its version.", no_args_is_help=True
)
app.add_typer(db, name="db")
app.add_typer(bundle_commands, name="bundle")
app.add_typer(clients_commands, name="clients")
app.add_typer(keys_commands, name="keys")
keys_commands.add_typer(smart_key_commands, name="smart")
keys_commands.command("rewrap")(rewrap)
app.add_typer(rare_commands, name="rare")
app.add_typer(ehr_commands, name="ehr")
app.command()(replay)
app.command()(aggregates)
app.add_typer(privacy_commands, name="privacy")
app.add_typer(retention_commands, name="retention")
app.add_typer(audit_commands, name="audit")
db.command()(partitions)
db.command()(roles)


def _settings_help() -> str:
    """Every setting by its name in the environment, with default and meaning (``\\b`` keeps the lines)."""
    paragraphs = ["Settings (in the TOML file named by CDS_CONFIG: without CDS_, in lower case):"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"  [default: {field.default}]"
        meaning = textwrap.wrap(field.description or "", 72, initial_indent="    ", subsequent_indent="    ")
        paragraphs.append("\n".join(["\b", f"CDS_{name.upper()}{default}", *meaning]))
    return "\n\n".join(paragraphs)


SERVICE_OF_HOOK = {"patient-view": "diagnostic-assessment", "order-select": "order-review"}

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Base URL of a running server (default: the address in the settings)."),
]
LanguageOption = Annotated[
    str | None, typer.Option("--language", "-l", help="Language of the texts: en or es.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Assess in this process: no server and no network needed.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the raw JSON answer instead of the readable view.")
]


@app.command(epilog=_settings_help())
def serve() -> None:
    """Start the server; everything about it is set by the environment or a TOML file, listed below."""
    from cds_server.auth.clients import ClientsFileInvalid  # noqa: PLC0415 - the client commands need no server
    from cds_server.auth.users_roles import RolesInvalid  # noqa: PLC0415
    from cds_server.db.urls import DatabaseUrlInvalid  # noqa: PLC0415
    from cds_server.deployment.source import ModelRefused  # noqa: PLC0415
    from cds_server.desk_deployment import refused_at_start  # noqa: PLC0415
    from cds_server.privacy import KeyMaterialInvalid  # noqa: PLC0415
    from cds_server.serve import run  # noqa: PLC0415
    from cds_server.smart.ehrs import EhrsInvalid  # noqa: PLC0415

    settings = read_settings()
    try:
        run(settings)
    except (ClientsFileInvalid, EhrsInvalid, RolesInvalid, KeyMaterialInvalid, DatabaseUrlInvalid) as fault:
        _fail(str(fault))
    except ModelRefused as refused:
        asyncio.run(refused_at_start(settings, refused.fault))
        _fail(_unusable(refused.reason))


@app.command()
def call(
    request: Annotated[
        Path, typer.Argument(help="A CDS Hooks request as a JSON file ('-' for standard input).")
    ],
    url: UrlOption = None,
    service: Annotated[
        str | None,
        typer.Option("--service", "-s", help="Service id (default: the one for the request's hook)."),
    ] = None,
    language: LanguageOption = None,
    offline: OfflineOption = False,
    raw: JsonOption = False,
) -> None:
    """Send a CDS Hooks request and show the cards that come back.

    For example: cds-server call examples/sepsis.json --language es
    """
    body = _read(request)
    try:
        hook = json.loads(body).get("hook")
    except (ValueError, AttributeError):
        _fail(f"{request} is not a CDS Hooks request: expected a JSON object with a member 'hook'.")
    target = service or SERVICE_OF_HOOK.get(hook)
    if target is None:
        _fail(f"{request}: no service for hook {hook!r}; the hooks served are {', '.join(SERVICE_OF_HOOK)}.")
    answer = _post(f"/cds-services/{target}", body, url=url, offline=offline, language=language, fhir=False)
    _show(answer, raw, show_cards)


@app.command()
def assess(
    bundle: Annotated[
        Path, typer.Argument(help="A FHIR R4 Bundle of one patient as a JSON file ('-' for stdin).")
    ],
    url: UrlOption = None,
    language: LanguageOption = None,
    raw: JsonOption = False,
) -> None:
    """Assess a FHIR R4 Bundle of one patient and show what was found.

    Runs in this process; with --url it asks a running server (POST /fhir/$assess) instead.
    """
    answer = _post("/fhir/$assess", _read(bundle), url=url, offline=url is None, language=language, fhir=True)
    _show(answer, raw, show_assessment)


@app.command()
def services(url: UrlOption = None, offline: OfflineOption = False, raw: JsonOption = False) -> None:
    """List the CDS services on offer, with the data each asks the EHR to send along."""

    async def get(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get("/cds-services")

    _show(_ask(get, url=url, offline=offline), raw, show_services)


@db.command()
def upgrade() -> None:
    """Create the database, or bring it to this version's schema (safe to repeat)."""
    _upgrade(read_settings())
    typer.echo("Database is up to date.")


@db.command()
def version() -> None:
    """Print the schema version of the database (nothing if it has none yet)."""
    from cds_server.db.migrate import current  # noqa: PLC0415

    settings = read_settings()
    with _database():
        found = current(settings.database_url)
    typer.echo(found or "no schema yet: run `cds-server db upgrade`")


def _unusable(reason: str) -> str:
    return (
        f"The model bundle cannot be used: {reason}.\n"
        "CDS_MODEL_BUNDLE names another one, or 'none' for the published rules alone; "
        "`cds-server bundle verify PATH` checks one."
    )


def _upgrade(settings: Settings) -> None:
    from cds_server.db.migrate import upgrade as migrate  # noqa: PLC0415 - Alembic stays out of the client commands

    settings.var_dir.mkdir(parents=True, exist_ok=True)
    with _database():
        migrate(settings.database_url)


@contextlib.contextmanager
def _database() -> Iterator[None]:
    """Ends with one line where the database cannot be reached; a migration that fails tells all it knows."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - the client commands need no database

    from cds_server.db.faults import reason  # noqa: PLC0415

    try:
        yield
    except (DBAPIError, OSError) as fault:
        if isinstance(fault, DBAPIError) and fault.statement is not None:
            raise
        _fail(f"This cannot be done now: {reason(fault)}")


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as fault:
        _fail(f"Cannot read {path}: {fault.strerror}.")


def _post(
    path: str, body: bytes, *, url: str | None, offline: bool, language: str | None, fhir: bool
) -> httpx.Response:
    headers = {"Content-Type": "application/fhir+json" if fhir else "application/json"}
    if language:
        if language not in ("en", "es"):
            _fail(f"--language {language}: texts come in en and es.")
        headers["Accept-Language"] = language

    async def post(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(path, content=body, headers=headers)

    return _ask(post, url=url, offline=offline)


def _ask(
    request: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]], *, url: str | None, offline: bool
) -> httpx.Response:
    """Run one request against a server, or against the application in this process."""
    settings = read_settings()
    if offline:
        _upgrade(settings)
        return asyncio.run(_in_process(settings, request))
    base = (url or settings.local_url).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https"):
        _fail(f"--url {base}: expected something like http://127.0.0.1:8000")

    async def remote() -> httpx.Response:
        async with httpx.AsyncClient(base_url=base, timeout=30) as client:
            return await request(client)

    try:
        return asyncio.run(remote())
    except httpx.HTTPError as fault:
        _fail(
            f"No answer from {base} ({type(fault).__name__}). Is it running? Start it with `make run` or "
            "`cds-server serve`, or add --offline to assess in this process."
        )


async def _in_process(
    settings: Settings, request: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
) -> httpx.Response:
    from cds_server.app import create_app  # noqa: PLC0415 - only the offline commands pay for it
    from cds_server.deployment.source import ModelRefused  # noqa: PLC0415
    from cds_server.monitoring.logging import configure_logging  # noqa: PLC0415

    configure_logging("error", "console")
    try:
        # Whoever may run this command in this directory has no need to prove it to himself.
        application = create_app(settings.model_copy(update={"client_auth": "off", "ip_allowlist": ""}))
    except ModelRefused as refused:
        _fail(_unusable(refused.reason))
    transport = httpx.ASGITransport(app=application)
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client,
    ):
        return await request(client)


def _show(answer: httpx.Response, raw: bool, view: Callable[[Any], None]) -> None:
    if raw:
        typer.echo(answer.text)
    elif answer.is_success:
        view(answer.json())
    else:
        show_fault(answer.status_code, answer.text)
    if not answer.is_success:
        raise typer.Exit(1)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


def main() -> None:
    """Entry point of the console script."""
    app()
