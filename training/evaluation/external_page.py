"""The sections of the page about the external sets."""

from collections.abc import Iterator
from typing import Any

from training.evaluation import plots
from training.evaluation.external import KTAS_TARGETS
from training.evaluation.markup import bullets, number, picture, table, text, with_interval

Data = dict[str, Any]
_BINARY = ("positives", "alert_rate", "sensitivity", "specificity", "ppv", "npv", "auprc", "brier", "ece")
_WORST = 15


def external_sections(external: Data) -> Iterator[str]:
    """One section a set; a set that was skipped says why."""
    for name, title, section in (
        ("ktas", "KTAS: real emergency visits", _ktas),
        ("ddxplus", "DDXPlus: synthetic presentations, zero-shot", _ddxplus),
        ("synthea", "Synthea: synthetic outpatients", _synthea),
    ):
        part = external.get(name)
        if part is None:
            continue
        yield text("h2", f"External. {title}")
        if "skipped" in part:
            yield text("p", f"Not measured: {part['skipped']}.")
            continue
        yield bullets(
            [
                f"{part['n']:,} cases, {part['failures']:,} not answered (they count as wrong).",
                f"Called atypical (resembles nothing known): {number(part['atypical_share'])}.",
            ]
        )
        yield from section(part)


def _ktas(part: Data) -> Iterator[str]:
    rows = [
        [
            target.replace("_", " "),
            with_interval(part[target]["auroc"], part[target]["auroc_ci95"]),
            *[part[target][key] for key in _BINARY],
            part[target]["specificity_at_sens_0.9"],
        ]
        for target in KTAS_TARGETS
    ]
    head = ["outcome", "AUROC (95 % interval)", *_BINARY, "specificity at sensitivity 0.9"]
    yield table("Immediate attention against what happened", head, rows)
    yield picture(
        plots.roc_and_pr({"critical": part["critical_curves"]}), "KTAS critical: ROC, precision-recall"
    )
    yield picture(
        plots.reliability({"critical": part["critical_curves"]["reliability"]}), "KTAS critical: reliability"
    )
    diagnosis = part["diagnosis"]
    if diagnosis:
        yield table("Emergency diagnosis (where it has a code)", list(diagnosis), [list(diagnosis.values())])
    yield from _conformal(part)
    yield from _groups(part["critical_subgroups"], "KTAS critical")
    levels = part["severity_by_level"]
    classes = sorted({name for row in levels.values() for name in row})
    rows = [[f"level {level}", *[row.get(name, 0) for name in classes]] for level, row in levels.items()]
    yield table("Severity class by expert level (1 is resuscitation)", ["level", *classes], rows)


def _ddxplus(part: Data) -> Iterator[str]:
    rows = [
        [
            f"top-{k}",
            with_interval(part[f"top{k}"], part[f"top{k}_ci95"]),
            part[f"top{k}_macro"],
            part[f"top{k}_uncollapsed"],
        ]
        for k in (1, 3, 5, 10)
    ]
    head = ("", "all cases (95 % interval)", "macro over pathologies", "without merging equivalent codes")
    yield table("True pathology among the first k", head, rows)
    others = ("mrr", "gtpa", "ddf1_closed", "ddr_closed", "ddp_closed", "ddf1_open", "top1_ece", "top1_brier")
    severity = ("severity_accuracy", "severity_accuracy_lenient", "severity_accuracy_lenient_macro")
    yield table("Differential", others, [[part[key] for key in others]])
    yield table("Severity class", severity, [[part[key] for key in severity]])
    own = part["immediate"]
    row = [with_interval(own["auroc"], own["auroc_ci95"]), *[own[key] for key in _BINARY]]
    yield table("Immediate attention (severity 1-2)", ["AUROC (95 % interval)", *_BINARY], [row])
    yield picture(
        plots.roc_and_pr({"severity 1-2": part["immediate_curves"]}),
        "DDXPlus immediate attention: ROC, precision-recall",
    )
    curves = {
        "first disease": part["top1_reliability"],
        "immediate attention": part["immediate_curves"]["reliability"],
    }
    yield picture(plots.reliability(curves), "DDXPlus: reliability")
    yield from _conformal(part)
    yield from _groups(part["immediate_subgroups"], "DDXPlus severity 1-2")
    worst = sorted(part["per_pathology_top5"].items(), key=lambda item: (item[1][1], item[0]))[:_WORST]
    rows = [[name, count, rate] for name, (count, rate) in worst]
    yield table("Pathologies found least often in the first five", ("pathology", "cases", "top-5"), rows)


def _synthea(part: Data) -> Iterator[str]:
    yield bullets(
        [
            f"With a differential {part['with_differential']}, with a severity {part['with_severity']}.",
            f"Called for immediate attention: {number(part['alert_rate'])}.",
            "Severity classes: "
            + ", ".join(f"{name} {count}" for name, count in part["severity"].items())
            + ".",
        ]
    )


def _conformal(part: Data) -> Iterator[str]:
    found = part.get("conformal")
    if found:
        yield text(
            "p",
            f"Conformal sets: the true group is inside in {number(found['coverage'])} of {found['n']} cases "
            f"with an accepted code; mean size {number(found['mean_size'], 1)}, "
            f"empty {number(found['empty'])}. "
            "The promise holds for patients like the simulated ones only.",
        )


def _groups(subgroups: Data, title: str) -> Iterator[str]:
    for kind, found in subgroups.items():
        figures = ("n", "prevalence", "alert_rate", "tpr", "fpr", "auroc")
        rows = [[name, *[row[key] for key in figures]] for name, row in found["groups"].items()]
        yield table(f"{title} by {kind}", [kind, *figures], rows)
        yield text(
            "p",
            f"Difference of sensitivity {number(found['equal_opportunity_difference'])}, of false-positive "
            f"rate {number(found['fpr_difference'])}; ratio (smallest by greatest) of sensitivities "
            f"{number(found['tpr_ratio'])}, of alert rates {number(found['disparate_impact_alert_rate'])}.",
        )
