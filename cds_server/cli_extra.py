"""Commands that other installed parts hang below ``cds-server``: training brings its own.

A part names a `typer.Typer` in the entry-point group ``cds_server.commands``; its name is the command's.
It is imported when it is called or listed, so that serving never pays for it, and when what it needs is
not installed, the command is still there and says what to install.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

GROUP = "cds_server.commands"
_INSTALL = "pip install 'cds-server[train]'"


class CommandsWithExtras(TyperGroup):
    """The commands of this package and those of the entry points, the former first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Own commands in order, then the others by name."""
        own = super().list_commands(ctx)
        return [*own, *sorted(name for name in _extras() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name, or `None`; of one name, ours is the one."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = _extras().get(cmd_name)
        return _loaded(entry) if entry is not None else None


def _extras() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _loaded(entry: EntryPoint) -> Any:
    try:
        found: typer.Typer = entry.load()
    except ModuleNotFoundError as fault:
        return _missing(entry.name, fault.name or "?")
    command = typer.main.get_command(found)
    command.name = entry.name
    return command


def _missing(name: str, module: str) -> TyperCommand:
    def explain() -> None:
        typer.echo(
            f"`cds-server {name}` needs the training set, which is not installed (no module {module!r}). "
            f"Install it with: {_INSTALL}",
            err=True,
        )
        raise typer.Exit(2)

    return TyperCommand(
        name,
        callback=explain,
        help=f"Not installed here: {_INSTALL}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    )
