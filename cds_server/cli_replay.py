"""``cds-server replay``: recompute past decisions and say whether they come out the same."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from cds_server.cli_desk import run
from cds_server.decisions.reasons import REASONS

if TYPE_CHECKING:
    from cds_server.decisions.replay import Replay

_console = Console()


def replay(
    decision: Annotated[str | None, typer.Argument(help="Id of the decision's audit event.")] = None,
    last: Annotated[
        int, typer.Option("--last", min=0, max=10_000, help="Replay the newest N decisions instead.")
    ] = 0,
    current: Annotated[
        bool,
        typer.Option(
            "--current",
            help="Compute with model and enrolled cases in use now: what would be answered today.",
        ),
    ] = False,
    raw: Annotated[bool, typer.Option("--json", help="One JSON object per decision.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the values that differ. They are of the patient's record.")
    ] = False,
) -> None:
    """Recompute past decisions from their kept inputs with the model and the enrolled cases of that day, and
    compare.

    Ends with 0 when every one is identical, else with 1.  Each replay is recorded in the audit trail.
    """
    if (decision is None) == (last == 0):
        typer.echo("Name one decision, or the newest with --last N.", err=True)
        raise typer.Exit(2)
    from cds_server import desk_replay  # noqa: PLC0415 - only this command pays for it
    from cds_server.decisions.differences import without_values  # noqa: PLC0415

    found = run(
        lambda settings: desk_replay.replay(settings, decision, last, current=current, quiet=raw, show=show)
    )
    if not show:
        found = [msgspec.structs.replace(one, differences=without_values(one.differences)) for one in found]
    if raw:
        for one in found:
            typer.echo(msgspec.json.encode(one).decode())
    else:
        _table(found)
    if not found or any(one.result != "identical" for one in found):
        raise typer.Exit(1)


def _table(found: "list[Replay]") -> None:
    table = Table(title="Replays", title_justify="left", show_lines=True)
    table.add_column("decision", no_wrap=True)
    for heading in ("made", "service", "result", "what is not as it was"):
        table.add_column(heading, overflow="fold")
    for one in found:
        lines = [REASONS[one.reason] + (f" ({one.detail})" if one.detail else "")] if one.reason else []
        lines += [f"{name}: {then} then, {now} now" for name, (then, now) in one.changed.items()]
        for place in one.differences:
            values = f": {place.before} → {place.after}" if place.before or place.after else ""
            lines.append(f"{place.change} {place.path}{values}")
        table.add_row(one.event_id, one.recorded, one.service, one.result, "\n".join(lines))
    _console.print(table)
    counts = {result: sum(one.result == result for one in found) for result in ("identical", "differs")}
    _console.print(
        f"{len(found)} replayed: {counts['identical']} identical, {counts['differs']} different, "
        f"{len(found) - sum(counts.values())} not to be had."
    )
