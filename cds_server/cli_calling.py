"""How a command asks: a server over HTTP or the application in this process; how it shows the answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
import typer

from cds_server.cli_settings import read_settings
from cds_server.cli_token import Credentials, ProofUnusable
from cds_server.cli_views import show_fault
from cds_server.settings import Settings


def unusable(reason: str) -> str:
    """What to say of a model bundle that cannot be used."""
    return (
        f"The model bundle cannot be used: {reason}.\n"
        "CDS_MODEL_BUNDLE names another one, or 'none' for the published rules alone; "
        "`cds-server bundle verify PATH` checks one."
    )


@contextlib.contextmanager
def database_faults() -> Iterator[None]:
    """Ends with one line where the database cannot be reached; a migration that fails tells all it knows."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - the client commands need no database

    from cds_server.db.faults import reason  # noqa: PLC0415

    try:
        yield
    except (DBAPIError, OSError) as fault:
        if isinstance(fault, DBAPIError) and fault.statement is not None:
            raise
        fail(f"This cannot be done now: {reason(fault)}")


def upgrade_database(settings: Settings) -> None:
    """Create the database, or bring it to this version's schema."""
    from cds_server.db.migrate import upgrade as migrate  # noqa: PLC0415 - Alembic stays out of the client commands

    settings.var_dir.mkdir(parents=True, exist_ok=True)
    with database_faults():
        migrate(settings.database_url)


def post_body(
    path: str,
    body: bytes,
    *,
    url: str | None,
    offline: bool,
    language: str | None,
    fhir: bool,
    who: Credentials,
) -> httpx.Response:
    """POST a body; see `ask`."""
    headers = {"Content-Type": "application/fhir+json" if fhir else "application/json"}
    if language:
        if language not in ("en", "es"):
            fail(f"--language {language}: texts come in en and es.")
        headers["Accept-Language"] = language

    async def post(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(path, content=body, headers=headers)

    return ask(post, url=url, offline=offline, who=who)


def ask(
    request: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]],
    *,
    url: str | None,
    offline: bool,
    who: Credentials,
) -> httpx.Response:
    """Run one request against a server, or against the application in this process."""
    settings = read_settings()
    if offline:
        if who.given:
            fail("In this process nobody has to authenticate: name the server with --url, or leave that out.")
        upgrade_database(settings)
        return asyncio.run(_in_process(settings, request))
    base = (url or settings.local_url).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https"):
        fail(f"--url {base}: expected something like http://127.0.0.1:8000")

    if who.audience is None and url is None and who.issuer is not None:
        who = replace(who, audience=settings.base_url)
    try:
        proof = who.proof(base)
    except ProofUnusable as fault:
        fail(str(fault))

    async def remote() -> httpx.Response:
        async with httpx.AsyncClient(base_url=base, timeout=30, auth=proof) as client:
            return await request(client)

    try:
        return asyncio.run(remote())
    except httpx.HTTPError as fault:
        fail(
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
        fail(unusable(refused.reason))
    transport = httpx.ASGITransport(app=application)
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client,
    ):
        return await request(client)


def show(answer: httpx.Response, raw: bool, view: Callable[[Any], None]) -> None:
    """Show an answer; ends the command with status 1 when it is a refusal."""
    if raw:
        typer.echo(answer.text)
    elif answer.is_success:
        view(answer.json())
    else:
        show_fault(answer.status_code, answer.text)
        if answer.status_code in (401, 403) and (request_id := answer.headers.get("X-Request-Id")):
            typer.echo(f"The server's log says why, under the request id {request_id}.", err=True)
    if not answer.is_success:
        raise typer.Exit(1)


def fail(message: str) -> NoReturn:
    """Say what is wrong and end the command with status 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2)
