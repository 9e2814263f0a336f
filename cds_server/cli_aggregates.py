"""``cds-server aggregates``: counts over many patients, with noise, for those who see no patient."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cds_server.cli_desk import NotDone, run
from cds_server.settings import Settings


def aggregates(
    by: Annotated[str, typer.Option("--by", help="severity, escalation, service, day or outcome.")],
    first: Annotated[str, typer.Option("--from", help="First month, such as 2026-10.")],
    last: Annotated[str | None, typer.Option("--to", help="Last month (default: the first).")] = None,
    epsilon: Annotated[float, typer.Option("--epsilon", help="What the answer may give away.")] = 1.0,
    raw: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count decisions by one property, with differential privacy, within each month's budget.

    The same question is answered again for nothing.
    """
    run(lambda settings: _aggregates(settings, by, first, last or first, epsilon, raw=raw))


async def _aggregates(
    settings: Settings, by: str, first: str, last: str, epsilon: float, *, raw: bool
) -> None:
    # Late: only this command pays for them.
    import msgspec  # noqa: PLC0415

    from cds_server.aggregates.answering import answer  # noqa: PLC0415
    from cds_server.aggregates.ledger import BudgetSpent  # noqa: PLC0415
    from cds_server.aggregates.noise import NoiseMissing  # noqa: PLC0415
    from cds_server.aggregates.questions import Question  # noqa: PLC0415
    from cds_server.errors import RequestMalformed  # noqa: PLC0415
    from cds_server.operator import at_desk  # noqa: PLC0415

    async with at_desk(settings) as desk:
        now = desk.now()
        try:
            question = Question.of(by, first, last, epsilon, now)
            found = await answer(desk.engine, settings.aggregate_epsilon, question, now)
        except RequestMalformed as fault:
            raise NotDone(f"--{fault.expression}: {fault.reason}") from None
        except BudgetSpent as fault:
            raise NotDone(f"The privacy budget of {fault.month} has {fault.left:g} left.") from None
        except NoiseMissing as fault:
            raise NotDone(f"Aggregates need OpenDP: {fault}") from None
        await desk.record("aggregates-read", by=by, since=first, until=last, epsilon=f"{found.epsilon:g}")
    if raw:
        typer.echo(msgspec.json.encode(found).decode())
        return
    table = Table(title=f"Decisions by {by}, {first} to {last}", title_justify="left")
    table.add_column(by)
    table.add_column("about", justify="right")
    for cell, count in found.counts.items():
        table.add_row(cell, f"{count:,}")
    console = Console()
    console.print(table)
    left = ", ".join(f"{month}: {rest:g}" for month, rest in found.left.items())
    console.print(
        f"Each within {found.accuracy_95:.0f} of the truth (95 %); of one patient at most "
        f"{found.most_per_patient} decisions count. Epsilon {found.epsilon:g}; left: {left}."
    )
