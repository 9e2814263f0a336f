"""The settings as a command reads them: what does not hold together ends it with a message."""

import typer

from cds_server.settings import Settings


def read_settings() -> Settings:
    """The settings of the environment; ends the command with status 2 when they do not hold together."""
    try:
        return Settings()
    except ValueError as fault:
        typer.echo(f"The settings do not hold together:\n{fault}", err=True)
        raise typer.Exit(2) from None
