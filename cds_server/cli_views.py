"""How answers look in a terminal: cards, assessments, the list of services, and faults."""

import json
from typing import Any

from rich.console import Console, Group
from rich.markdown import Markdown
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_COLOURS = {"critical": "red", "warning": "yellow", "info": "blue"}
_console = Console()


def show_cards(answer: dict[str, Any]) -> None:
    """The cards of a hook answer, gravest first as they came."""
    cards = answer.get("cards", [])
    if not cards:
        _console.print(Text("No cards: nothing in this record asks for attention.", style="green"))
        return
    for number, card in enumerate(cards, 1):
        colour = _COLOURS.get(card["indicator"], "white")
        parts: list[Any] = [Text(card["summary"], style="bold")]
        if card.get("detail"):
            parts += [Text(), Markdown(card["detail"])]
        suggestions = card.get("suggestions", [])
        if suggestions:
            parts += [Text(), Text("One click:", style="bold")]
        for suggestion in suggestions:
            marker = "★" if suggestion.get("isRecommended") else "•"
            parts.append(Text(f"  {marker} {suggestion['label']}"))
        parts += [Text(f"  → {link['label']}: {link['url']}") for link in card.get("links", [])]
        title = f"{number}/{len(cards)}  {card['indicator'].upper()}"
        _console.print(
            Panel(
                Group(*parts),
                title=title,
                title_align="left",
                border_style=colour,
                subtitle=card["source"]["label"],
            )
        )


def show_services(answer: dict[str, Any]) -> None:
    """The discovery document as a table."""
    table = Table(title="CDS services", title_justify="left", show_lines=True)
    for heading in ("id", "hook", "what it does", "prefetch"):
        table.add_column(heading, overflow="fold")
    for service in answer["services"]:
        prefetch = ", ".join(service.get("prefetch", {}))
        table.add_row(service["id"], service["hook"], service["description"], prefetch)
    _console.print(table)


def _value(part: dict[str, Any]) -> str:
    for name, value in part.items():
        if name.startswith("value"):
            return str(value.get("display") or value.get("code")) if isinstance(value, dict) else str(value)
    return ""


def _branch(table: Table, parameter: dict[str, Any], depth: int = 0) -> None:
    resource = parameter.get("resource")
    if resource is not None:
        predictions = resource.get("prediction", [])
        table.add_row("  " * depth + parameter["name"], f"{len(predictions)} predictions")
        for prediction in predictions[:10]:
            outcome = prediction["outcome"]
            label = outcome.get("text") or outcome["coding"][0].get("display") or outcome["coding"][0]["code"]
            table.add_row("", f"{prediction.get('probabilityDecimal', 0):6.1%}  {label}")
        return
    table.add_row("  " * depth + parameter["name"], _value(parameter))
    for part in parameter.get("part", []):
        _branch(table, part, depth + 1)


def show_assessment(answer: dict[str, Any]) -> None:
    """The Parameters of `$assess` as an indented table."""
    table = Table(title="Assessment", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for parameter in answer.get("parameter", []):
        _branch(table, parameter)
    _console.print(table)


def show_fault(status: int, body: str) -> None:
    """A refusal: the OperationOutcome's issues, or the body as it came."""
    lines = [f"Refused with HTTP {status}."]
    try:
        for issue in json.loads(body).get("issue", []):
            where = ", ".join(issue.get("expression", []))
            text = issue.get("diagnostics") or issue.get("details", {}).get("text") or issue.get("code", "")
            lines.append(f"  {where + ': ' if where else ''}{text}")
    except (ValueError, AttributeError):
        lines.append(body[:2000])
    _console.print(Text("\n".join(lines), style="red"))
