"""The goal tables as Markdown, for ``docs/ensemble-performance.md``.

Between two markers, so that the words around them are written by people and survive.
"""

from pathlib import Path
from typing import Any

from training.evaluation.markup import number, with_interval
from training.evaluation.report import summary

BEGIN, END = "<!-- evaluation:begin -->", "<!-- evaluation:end -->"
_TITLE = {
    "internal": "Internal: held-out simulated patients",
    "external": "External: development sets, never trained on",
}


class MarkersMissing(ValueError):
    """A document has only one of the two markers, or they are in the wrong order."""


def markdown(report: dict[str, Any]) -> str:
    """The tables: figure, measured, goal, verdict; then the models side by side, then the notes."""
    lines = [f"Model `{report['model']}`: {summary(report)}.", ""]
    for part, title in _TITLE.items():
        rows = [row for row in report["goals"] if row["part"] == part]
        if report[part] is not None:
            lines += [f"### {title}", "", *_goals(rows), ""]
    internal = report["internal"]
    if internal is not None and len(internal["models"]) > 1:
        lines += ["### All models on the same simulated patients", "", *_models(internal), ""]
    lines += [f"* {note}" for note in report["notes"]]
    return "\n".join(lines)


def _goals(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| figure | measured (95 % interval) | reach / aim | verdict | for orientation |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        sign = "≥" if row["better"] == "higher" else "≤"
        goal = f"{sign} {row['reach']:g}" + (f" / {row['aim']:g}" if row["aim"] is not None else "")
        verdict = f"**{row['verdict']}**" if row["verdict"] == "missed" else row["verdict"]
        shown = with_interval(row["value"], row["interval"])
        cells = (row["label"], shown, goal, verdict, row["orientation"])
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def _models(internal: dict[str, Any]) -> list[str]:
    figures = (
        "disease_macro_f1", "severity_macro_f1", "top1", "top5", "top10", "critical_patient_recall",
        "immediate_auroc", "disease_top1_ece", "disease_log_loss",
    )  # fmt: skip
    lines = ["| model | " + " | ".join(figures) + " |", "|---|" + "---|" * len(figures)]
    for name, held in internal["models"].items():
        lines.append("| " + " | ".join([_cell(name), *[number(held[figure]) for figure in figures]]) + " |")
    return lines


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def write_markdown(report: dict[str, Any], path: Path) -> None:
    """Put the tables between the markers of a document, which is made when there is none.

    Raises `MarkersMissing` rather than write over words that somebody wrote.
    """
    put_between(path, markdown(report), "How good the ensemble is")


def put_between(path: Path, text: str, title: str) -> None:
    """Put a text between the markers of a document, which is made with a title when there is none.

    Raises `MarkersMissing` rather than write over words that somebody wrote.
    """
    old = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n{BEGIN}\n{END}\n"
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise MarkersMissing(f"{path.name}: the lines {BEGIN} and {END} must both be there, in this order")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
