"""The goals beside the figures: which are reached, which are missed, which could not be measured.

The goals are data (``goals.csv``); a figure is found by its dotted path in the part of the report.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

Verdict = Literal["aim", "reached", "missed", "not measured"]
_FILE = "goals.csv"


class GoalsInvalid(ValueError):
    """The goals file is wrong; the message names row and column."""


@dataclass(frozen=True)
class Goal:
    """One row: `key` is the path of the figure, `reach` what must be reached, `aim` what we would like."""

    part: Literal["internal", "external"]
    key: str
    label: str
    better: Literal["higher", "lower"]
    reach: float
    aim: float | None
    orientation: str

    def verdict(self, value: float | None) -> Verdict:
        """How a figure stands to this goal; meeting a limit exactly counts as reaching it."""
        if value is None:
            return "not measured"
        if self.aim is not None and self._meets(value, self.aim):
            return "aim"
        return "reached" if self._meets(value, self.reach) else "missed"

    def _meets(self, value: float, limit: float) -> bool:
        return value >= limit if self.better == "higher" else value <= limit


def load_goals() -> tuple[Goal, ...]:
    """All goals in the order of the file; raises `GoalsInvalid`."""
    text = files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    found = []
    for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
        if row["part"] not in ("internal", "external"):
            raise GoalsInvalid(f"{_FILE} row {number}: part must be internal or external")
        if row["better"] not in ("higher", "lower"):
            raise GoalsInvalid(f"{_FILE} row {number}: better must be higher or lower")
        try:
            reach, aim = float(row["reach"]), float(row["aim"]) if row["aim"] else None
        except ValueError as fault:
            raise GoalsInvalid(f"{_FILE} row {number}: reach and aim must be numbers") from fault
        part: Literal["internal", "external"] = "internal" if row["part"] == "internal" else "external"
        better: Literal["higher", "lower"] = "higher" if row["better"] == "higher" else "lower"
        found.append(Goal(part, row["key"], row["label"], better, reach, aim, row["orientation"]))
    return tuple(found)


def figure_at(part: Any, key: str) -> float | None:
    """The figure at a dotted path; `None` where the path ends early."""
    for name in key.split("."):
        if not isinstance(part, dict) or name not in part:
            return None
        part = part[name]
    return float(part) if isinstance(part, int | float) and not isinstance(part, bool) else None


def judge(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every goal with the figure, its 95 % interval where one was made, and the verdict, as plain data."""
    rows = []
    for goal in load_goals():
        part = report.get(goal.part)
        value = figure_at(part, goal.key)
        rows.append(
            {
                "part": goal.part,
                "key": goal.key,
                "label": goal.label,
                "better": goal.better,
                "value": value,
                "interval": _interval(part, goal.key),
                "reach": goal.reach,
                "aim": goal.aim,
                "orientation": goal.orientation,
                "verdict": goal.verdict(value),
            }
        )
    return rows


def _interval(part: Any, key: str) -> list[float] | None:
    """Intervals stand beside their figure (``auroc_ci95``) or, in the internal part, below `intervals`."""
    if not isinstance(part, dict):
        return None
    head, _, last = key.rpartition(".")
    if head == "figures":
        beside = part.get("intervals", {}).get(last)
        return beside if isinstance(beside, list) else None
    for name in head.split(".") if head else []:
        part = part.get(name, {}) if isinstance(part, dict) else {}
    beside = part.get(f"{last}_ci95") if isinstance(part, dict) else None
    return beside if isinstance(beside, list) else None
