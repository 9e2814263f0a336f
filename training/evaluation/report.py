"""The report as plain data, its files, and the flat metrics that a bundle's manifest carries.

Everything shown anywhere (page, Markdown table, model card) is read from this one value; no clock and no
machine enters it, so the same predictions and answers give the same bytes.
"""

import json
from pathlib import Path
from typing import Any

from training.evaluation.goals import judge

JSON_NAME, HTML_NAME = "evaluation.json", "evaluation.html"
FORMAT = 1
_INTERNAL_NOTES = (
    "The internal figures are of SIMULATED patients, drawn from the same knowledge base that the ensemble "
    "was trained on. They say how well it learned the simulator, not how well it diagnoses people.",
    "The reference model is the simulator's own likelihood with findings taken as independent. It "
    "approximates the Bayes optimum of the simulator, which nothing can beat; itself it can be beaten where "
    "findings go together.",
    "The case mix is flattened on purpose (rare dangerous diseases are over-represented), so predictive "
    "values are not those of a waiting room.",
    "Intervals are 95 % percentile intervals of a seeded bootstrap over patients. They hold the chance in "
    "who was drawn, not the distance between simulation and reality.",
    "Equal opportunity and disparate impact compare the share of patients in need who are called; groups "
    "with fewer than 20 patients in need are shown but not compared. Plain alert rates follow the "
    "prevalence, which differs by age.",
)
_EXTERNAL_NOTES = (
    "The external sets are development splits (30 %). Nothing was trained, tuned or thresholded on them, "
    "but they were looked at while reader and coding were debugged: they are not blind. Two grade-C "
    "weights of the rules were lowered after the charts had been seen (docs/rules-performance.md).",
    "KTAS are 379 real emergency visits of two Korean departments in 2016-17, 74 of them critical: one "
    "patient moves sensitivity by more than a point. DDXPlus is synthetic, symptoms and history only. "
    "Synthea outpatients have no labels.",
    "The severity classes of DDXPlus are its evaluator's own mapping of pathologies.",
)


def build_report(
    *, model: str, internal: dict[str, Any] | None, external: dict[str, Any] | None
) -> dict[str, Any]:
    """Put the parts together with the goals and what must be known to read them.

    Args:
        model: id of the model bundle that was evaluated.
        internal: of `training.evaluation.internal.evaluate_internal`; `None` when not made.
        external: of `training.evaluation.external.evaluate_external`; `None` when not made.
    """
    report: dict[str, Any] = {"format": FORMAT, "model": model, "internal": internal, "external": external}
    report["goals"] = judge(report)
    report["notes"] = [
        *(_INTERNAL_NOTES if internal is not None else ()),
        *(_EXTERNAL_NOTES if external is not None else ()),
        *_skipped(external or {}),
    ]
    return report


def _skipped(external: dict[str, Any]) -> list[str]:
    found = []
    for name, part in external.items():
        if "skipped" in part:
            found.append(f"{name} was not measured: {part['skipped']}.")
        elif part.get("failures"):
            kinds = ", ".join(f"{kind} {count}" for kind, count in part["failure_reasons"].items())
            found.append(f"{name}: {part['failures']} cases were not answered and count as wrong ({kinds}).")
    return found


def summary(report: dict[str, Any]) -> str:
    """One line: how many goals are reached, missed, not measured."""
    verdicts = [row["verdict"] for row in report["goals"]]
    reached = sum(verdict in ("aim", "reached") for verdict in verdicts)
    missed, unmeasured = verdicts.count("missed"), verdicts.count("not measured")
    return f"{reached} goals reached, {missed} missed, {unmeasured} not measured"


def flat_metrics(report: dict[str, Any]) -> dict[str, float]:
    """The measured figures that have a goal, by ``part.key``, and the headline figures of every part."""
    found = {f"{row['part']}.{row['key']}": row["value"] for row in report["goals"]}
    for name, value in ((report["internal"] or {}).get("figures") or {}).items():
        found[f"internal.figures.{name}"] = value
    return {name: float(value) for name, value in sorted(found.items()) if value is not None}


def report_json(report: dict[str, Any]) -> str:
    """The report as JSON text."""
    return json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def read_report(path: Path) -> dict[str, Any]:
    """A report that was written before; raises `ValueError` when the file holds none of this format."""
    report = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ValueError(f"{path.name} is not an evaluation report of format {FORMAT}")
    return report
