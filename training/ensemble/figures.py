"""The figures that versions are compared by, picked from an evaluation.

Responsible also for taking figures about immediate attention out of an evaluation of records that do not
tell who needed it: a figure against drawn labels would look like one.
"""

from typing import Any

_KEY_FIGURES = {
    "top1": "figures.top1",
    "top3": "figures.top3",
    "top5": "figures.top5",
    "top10": "figures.top10",
    "severity_macro_f1": "figures.severity_macro_f1",
    "critical_recall": "figures.critical_patient_recall",
    "no_disease_npv": "figures.no_disease_npv",
    "mild_precision": "figures.mild_disease_precision",
    "mild_specificity": "figures.mild_disease_specificity",
    "ece_top1": "figures.disease_top1_ece",
    "ece_immediate": "figures.immediate_ece",
    "log_loss": "figures.disease_log_loss",
    "coverage": "conformal.coverage",
    "set_size": "conformal.mean_size",
}
_OF_NEED = ("immediate_", "critical_patient_")
_OF_GROUPS = ("groups", "not_compared")
_OF_ONE_GROUP = ("positives", "prevalence", "tpr", "fpr", "auroc", "immediate_ece")


def key_figures(internal: dict[str, Any] | None) -> dict[str, float]:
    """The few figures of an evaluation's internal part that a version is known by, where measured.

    `top1` to `top10`; `severity_macro_f1`; `critical_recall` (patients in need who are called);
    `no_disease_npv`; `mild_precision`, `mild_specificity`; `ece_top1`, `ece_immediate`; `log_loss` of the
    disease; `coverage` and mean `set_size` of the conformal sets.
    """
    found: dict[str, float] = {}
    for name, path in _KEY_FIGURES.items():
        value: Any = internal or {}
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            found[name] = float(value)
    return found


def without_need(internal: dict[str, Any]) -> dict[str, Any]:
    """The internal part of an evaluation with everything about immediate attention not measured."""
    found = dict(internal)
    for part in ("figures", "intervals"):
        found[part] = {
            name: None if name.startswith(_OF_NEED) else value for name, value in internal[part].items()
        }
    found["immediate"] = {
        name: {"reliability": []} if name == "curves" else None for name in internal["immediate"]
    }
    found["no_disease"] = internal["no_disease"] | {"in_need": None, "in_need_share": None}
    found["subgroups"] = {kind: _groups(table) for kind, table in internal["subgroups"].items()}
    unknown = {"difference": None, "ci95": None}
    found["ablations"] = [row | {"immediate_brier": unknown} for row in internal["ablations"]]
    found["models"] = {
        name: {key: None if key.startswith(_OF_NEED) else value for key, value in figures.items()}
        for name, figures in internal["models"].items()
    }
    return found


def _groups(table: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value if name in _OF_GROUPS else None for name, value in table.items()}
    kept["groups"] = {
        name: row | dict.fromkeys(key for key in _OF_ONE_GROUP if key in row)
        for name, row in table["groups"].items()
    }
    return kept
