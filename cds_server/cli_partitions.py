"""``cds-server db partitions``: the months of the audit trail on PostgreSQL."""

import asyncio
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from cds_server.cli_settings import read_settings
from cds_server.db import partitions as months
from cds_server.db.engine import create_engine
from cds_server.db.faults import reason
from cds_server.db.urls import is_sqlite


def partitions() -> None:
    """Make this month's and the next months' partitions of the audit trail, and list all there are."""
    url = read_settings().database_url
    if is_sqlite(url):
        typer.echo("SQLite has no partitions; nothing to do.")
        return

    async def work() -> tuple[dict[str, str], list[months.Partition]]:
        engine = create_engine(url)
        try:
            made = await months.make_ahead(engine, datetime.now(UTC))
            return {f"{month:%Y-%m}": what for month, what in made.items()}, await months.partitions(engine)
        finally:
            await engine.dispose()

    try:
        made, found = asyncio.run(work())
    except (SQLAlchemyError, OSError) as fault:
        typer.echo(f"The database cannot do this now: {reason(fault)}", err=True)
        raise typer.Exit(2) from None
    table = Table("partition", "from and to", "events (estimated)", "MiB")
    for part in found:
        table.add_row(part.name, part.bounds, f"{part.rows:,}", f"{part.size / (1 << 20):,.1f}")
    Console().print(table)
    for month, what in made.items():
        if what == "added":
            typer.echo(f"{month}: added")
        elif what == "unfiled":
            typer.echo(f"{month}: its events are in events_unfiled already and stay there")
