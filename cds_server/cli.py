"""The `cds-server` command: start the server, send it a request, read the answer like a person.

Every subcommand uses the product's own line: `call --offline` and `assess` run the same application in
this process, with its database and its audit trail, only without a socket in between.
"""

import asyncio
import json
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import httpx
import typer

from cds_server.cli_aggregates import aggregates
from cds_server.cli_audit import audit_commands
from cds_server.cli_bundle import bundle_commands
from cds_server.cli_calling import (
    ask,
    database_faults,
    fail,
    post_body,
    show,
    unusable,
    upgrade_database,
)
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
from cds_server.cli_token import (
    AudienceOption,
    Credentials,
    IssuerOption,
    JkuOption,
    KeyOption,
    KidOption,
    TenantOption,
    TokenFileOption,
)
from cds_server.cli_views import show_assessment, show_cards, show_services
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
        fail(str(fault))
    except ModelRefused as refused:
        asyncio.run(refused_at_start(settings, refused.fault))
        fail(unusable(refused.reason))


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
    issuer: IssuerOption = None,
    key: KeyOption = None,
    kid: KidOption = None,
    jku: JkuOption = None,
    tenant: TenantOption = None,
    audience: AudienceOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Send a CDS Hooks request and show the cards that come back.

    For example: cds-server call examples/sepsis.json --language es
    Where callers must authenticate: ... --url https://cds.hospital.example --issuer ISS --key KEY.pem
    """
    body = _read(request)
    try:
        hook = json.loads(body).get("hook")
    except (ValueError, AttributeError):
        fail(f"{request} is not a CDS Hooks request: expected a JSON object with a member 'hook'.")
    target = service or SERVICE_OF_HOOK.get(hook)
    if target is None:
        fail(f"{request}: no service for hook {hook!r}; the hooks served are {', '.join(SERVICE_OF_HOOK)}.")
    who = Credentials(issuer, key, kid, jku, tenant, audience, token_file)
    answer = post_body(
        f"/cds-services/{target}", body, url=url, offline=offline, language=language, fhir=False, who=who
    )
    show(answer, raw, show_cards)


@app.command()
def assess(
    bundle: Annotated[
        Path, typer.Argument(help="A FHIR R4 Bundle of one patient as a JSON file ('-' for stdin).")
    ],
    url: UrlOption = None,
    language: LanguageOption = None,
    raw: JsonOption = False,
    issuer: IssuerOption = None,
    key: KeyOption = None,
    kid: KidOption = None,
    jku: JkuOption = None,
    tenant: TenantOption = None,
    audience: AudienceOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Assess a FHIR R4 Bundle of one patient and show what was found.

    Runs in this process; with --url it asks a running server (POST /fhir/$assess) instead.
    """
    who = Credentials(issuer, key, kid, jku, tenant, audience, token_file)
    answer = post_body(
        "/fhir/$assess", _read(bundle), url=url, offline=url is None, language=language, fhir=True, who=who
    )
    show(answer, raw, show_assessment)


@app.command()
def services(
    url: UrlOption = None,
    offline: OfflineOption = False,
    raw: JsonOption = False,
    issuer: IssuerOption = None,
    key: KeyOption = None,
    kid: KidOption = None,
    jku: JkuOption = None,
    tenant: TenantOption = None,
    audience: AudienceOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """List the CDS services on offer, with the data each asks the EHR to send along."""

    async def get(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get("/cds-services")

    who = Credentials(issuer, key, kid, jku, tenant, audience, token_file)
    show(ask(get, url=url, offline=offline, who=who), raw, show_services)


@db.command()
def upgrade() -> None:
    """Create the database, or bring it to this version's schema (safe to repeat)."""
    upgrade_database(read_settings())
    typer.echo("Database is up to date.")


@db.command()
def version() -> None:
    """Print the schema version of the database (nothing if it has none yet)."""
    from cds_server.db.migrate import current  # noqa: PLC0415

    settings = read_settings()
    with database_faults():
        found = current(settings.database_url)
    typer.echo(found or "no schema yet: run `cds-server db upgrade`")


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as fault:
        fail(f"Cannot read {path}: {fault.strerror}.")


def main() -> None:
    """Entry point of the console script."""
    app()
