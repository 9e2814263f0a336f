"""``cds-server db roles``: what owner, application and auditor may do on PostgreSQL."""

import asyncio
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from cds_server.cli_settings import read_settings
from cds_server.db import roles as rights
from cds_server.db.engine import create_engine
from cds_server.db.faults import reason
from cds_server.db.urls import is_sqlite


def roles(
    owner: Annotated[str, typer.Option("--owner", help="Role that migrates and owns the tables.")],
    application: Annotated[str, typer.Option("--application", help="Role the server logs in as.")],
    auditor: Annotated[str, typer.Option("--auditor", help="Role that only reads the audit trail.")],
    schema: Annotated[str, typer.Option("--schema", help="Schema in which the tables are.")] = "public",
    apply: Annotated[
        bool, typer.Option("--apply", help="Run the statements (CDS_DATABASE_URL) instead of printing them.")
    ] = False,
) -> None:
    """Print (for psql) or apply the rights of three existing roles; PostgreSQL only, safe to repeat.

    For example: cds-server db roles --owner cds_owner --application cds --auditor cds_auditor | psql -1 cds
    """
    try:
        wanted = rights.statements(rights.Roles(owner, application, auditor), schema=schema)
    except rights.RoleNameInvalid as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from None
    if not apply:
        typer.echo("\n".join(wanted))
        return
    url = read_settings().database_url
    if is_sqlite(url):
        typer.echo("SQLite has no roles: whoever can write the file can write everything.", err=True)
        raise typer.Exit(2)

    async def work() -> None:
        engine = create_engine(url, pool_size=1, timeout=60)
        try:
            await rights.apply(engine, wanted)
        finally:
            await engine.dispose()

    try:
        asyncio.run(work())
    except (SQLAlchemyError, OSError) as fault:
        cause = getattr(fault, "orig", None)
        typer.echo(f"Nothing was changed: {reason(fault)}", err=True)
        if cause is not None:
            typer.echo(str(cause.__cause__ or cause), err=True)  # names roles and tables, nothing else
        raise typer.Exit(2) from None
    typer.echo(f"{len(wanted)} statements applied.")
