"""The report as one self-contained HTML page, for reading offline and for keeping with a release.

Takes the report's plain data only, so a page can be made again from the JSON beside it.
"""

from collections.abc import Iterator
from html import escape
from typing import Any

from training.evaluation import plots
from training.evaluation.external_page import external_sections
from training.evaluation.markup import (
    STYLE,
    bullets,
    element,
    marked_table,
    number,
    picture,
    table,
    text,
    with_interval,
)
from training.evaluation.report import summary

Data = dict[str, Any]
_MARK = {"missed": "missed", "not measured": "unmeasured"}
_GROUP_COLUMNS = (
    ("n", "patients"), ("positives", "in need"), ("alert_rate", "called"), ("tpr", "sensitivity"),
    ("fpr", "false-positive rate"), ("auroc", "AUROC"), ("immediate_ece", "ECE"), ("top1", "top-1"),
    ("top5", "top-5"), ("disease_macro_f1", "disease macro F1"), ("severity_macro_f1", "severity macro F1"),
    ("coverage", "set coverage"), ("set_size", "set size"),
)  # fmt: skip
_APART = (
    ("equal_opportunity_difference", "equal-opportunity difference"),
    ("disparate_impact", "disparate impact (in need)"),
    ("alert_rate_ratio", "alert-rate ratio"),
    ("prevalence_ratio", "prevalence ratio"),
    ("fpr_difference", "false-positive difference"),
)
_KIND = {"sex": "sex", "age_band": "age band", "setting": "setting"}
_WORST = 25


def render(report: Data) -> str:
    """The page; the same report gives the same bytes."""
    title = "Evaluation of the common-disease ensemble"
    parts = [
        text("h1", title),
        text("p", f"Model: {report['model']}. {summary(report)}."),
        element("div", text("h2", "How to read this") + bullets(report["notes"]), class_="notes"),
        *_goals(report),
    ]
    if report["internal"] is not None:
        parts += _internal(report["internal"])
    if report["external"] is not None:
        parts += external_sections(report["external"])
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8" />'
        f'<meta name="viewport" content="width=device-width" /><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _goals(report: Data) -> Iterator[str]:
    yield text("h2", "Goals")
    for part, caption in (
        ("internal", "Internal: held-out simulated patients"),
        ("external", "External: development sets, never trained on"),
    ):
        if report[part] is None:
            yield text("p", f"The {part} part was not made in this run.")
            continue
        rows = [
            (
                _MARK.get(row["verdict"], ""),
                [
                    row["label"],
                    with_interval(row["value"], row["interval"]),
                    ("≥ " if row["better"] == "higher" else "≤ ") + f"{row['reach']:g}",
                    f"{row['aim']:g}" if row["aim"] is not None else None,
                    row["verdict"],
                    row["orientation"],
                ],
            )
            for row in report["goals"]
            if row["part"] == part
        ]
        head = ("figure", "measured (95 % interval)", "reach", "aim", "verdict", "for orientation")
        yield marked_table(caption, head, rows)


def _internal(part: Data) -> Iterator[str]:
    yield text("h2", "Internal: held-out simulated patients")
    about = [f"{key}: {value}" for key, value in part["about"].items()]
    present = f"{part['n']:,} patients with {part['diseases_present']} of {part['diseases']} diseases."
    yield bullets([present, *about])
    yield from _models(part)
    yield from _calibration(part)
    yield from _severity(part["severity"])
    yield from _immediate(part)
    if "conformal" in part:
        yield from _conformal(part["conformal"])
    yield from _subgroups(part["subgroups"])
    yield from _ablations(part)
    yield from _diseases(part["per_disease"])


def _models(part: Data) -> Iterator[str]:
    names = list(part["models"])
    yield text("h3", "All models on the same patients")
    rows = [
        [figure, with_interval(part["figures"][figure], part["intervals"].get(figure))]
        + [part["models"][name][figure] for name in names[1:]]
        for figure in part["figures"]
    ]
    yield table("Headline figures", ["figure", f"{names[0]} (95 % interval)", *names[1:]], rows)
    healthy = part["no_disease"]
    yield text(
        "p",
        f"Called no-disease: {healthy['called']:,} patients; in need of immediate attention among them: "
        f"{number(healthy['in_need'], 0)} ({number(healthy['in_need_share'])}).",
    )


def _calibration(part: Data) -> Iterator[str]:
    yield text("h3", "Calibration")
    curves = {
        "first disease": part["disease_reliability"],
        "immediate attention": part["immediate"]["curves"]["reliability"],
    }
    caption = "Reliability: first disease, immediate attention"
    yield picture(plots.reliability(curves), caption)
    classes = {name: row["curves"]["reliability"] for name, row in part["severity"]["classes"].items()}
    yield picture(plots.reliability(classes), "Reliability of the severity classes")


def _severity(severity: Data) -> Iterator[str]:
    yield text("h3", "Severity class")
    names = list(severity["classes"])
    yield picture(
        plots.confusion(severity["confusion"], names), "Severity: true class (rows) against decided (columns)"
    )
    figures = ("positives", "sensitivity", "specificity", "ppv", "npv", "auroc", "auprc", "brier", "ece")
    rows = [[name, *[severity["classes"][name][key] for key in figures]] for name in names]
    yield table("Each class against the rest", ["class", *figures], rows)
    curves = {name: row["curves"] for name, row in severity["classes"].items()}
    yield picture(plots.roc_and_pr(curves), "ROC and precision-recall of the severity classes")


def _immediate(part: Data) -> Iterator[str]:
    yield text("h3", "Immediate attention")
    own = part["immediate"]
    figures = [key for key in own if key != "curves"]
    yield table("The product's decision and its probability", figures, [[own[key] for key in figures]])
    yield picture(
        plots.roc_and_pr({"immediate attention": own["curves"]}),
        "ROC and precision-recall of immediate attention",
    )


def _conformal(conformal: Data) -> Iterator[str]:
    yield text("h3", "Conformal sets")
    yield text(
        "p",
        f"Promised coverage {conformal['promised']:g}, found {number(conformal['coverage'])}; mean size "
        f"{number(conformal['mean_size'], 1)}, median {number(conformal['median_size'], 0)}, 90th percentile "
        f"{number(conformal['p90_size'], 0)}; empty {number(conformal['empty'])}; dangerous diseases inside "
        f"{number(conformal['critical_recall'])}.",
    )
    yield picture(plots.set_sizes(conformal["sizes"]), "Sizes of the conformal sets")
    rows = [
        [name, row["n"], row["coverage"], row["set_size"]] for name, row in conformal["by_severity"].items()
    ]
    yield table("Coverage by severity", ("class", "patients", "coverage", "mean size"), rows)


def _subgroups(subgroups: Data) -> Iterator[str]:
    yield text("h3", "Groups of patients")
    for kind, found in subgroups.items():
        rows = [[name, *[row.get(key) for key, _ in _GROUP_COLUMNS]] for name, row in found["groups"].items()]
        head = [_KIND[kind], *[label for _, label in _GROUP_COLUMNS]]
        yield table(f"By {_KIND[kind]} (called, sensitivity: immediate attention)", head, rows)
        apart = "; ".join(f"{label} {number(found.get(key))}" for key, label in _APART)
        few = (
            f" Too few in need to be compared: {', '.join(found['not_compared'])}."
            if found["not_compared"]
            else ""
        )
        yield text("p", f"{apart}.{few}")
        shown = {
            "tpr": "sensitivity (immediate attention)",
            "alert_rate": "called",
            "top5": "disease in top-5",
        }
        yield picture(plots.groups(found["groups"], shown), f"Groups by {_KIND[kind]}")


def _ablations(part: Data) -> Iterator[str]:
    yield text("h3", "Does each member earn its place?")
    if not part["ablations"]:
        yield text("p", "No ablations were given for this run.")
        return
    yield picture(plots.ablations(part["ablations"]), "Log loss of the ablations above the ensemble's")

    def cell(found: Data) -> str:
        return with_interval(found["difference"], found["ci95"])

    figures = ("disease_log_loss", "top1", "top5", "immediate_brier")
    rows = [
        [row["name"], *[cell(row[figure]) for figure in figures], row["ensemble_better"]]
        for row in part["ablations"]
    ]
    head = ("model", *figures, "ensemble better")
    yield table("Ensemble minus ablation on the same patients (95 % interval, paired)", head, rows)


def _diseases(per_disease: Data) -> Iterator[str]:
    yield text("h3", "Diseases")
    order = sorted(per_disease.items(), key=lambda item: (item[1]["f1"], item[0]))
    dangerous = [item for item in order if item[1]["critical"] and (item[1]["top5"] or 0.0) < 0.95]

    def rows(items: list[tuple[str, Data]]) -> list[list[Any]]:
        return [[name, row["n"], row["f1"], row["top5"], row["taken_for"] or ""] for name, row in items]

    head = ("disease", "patients", "F1 (first)", "top-5", "most often taken for")
    yield table(f"The {min(_WORST, len(order))} diseases told least well", head, rows(order[:_WORST]))
    yield table(
        "Dangerous diseases that are not among the first five in 95 %", head, rows(dangerous[:_WORST])
    )
