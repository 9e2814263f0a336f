"""Fairness of one decision between groups of patients, with fairlearn.

Differences and ratios are taken between the figures as shown (four decimals), so that a reader can check
them.  fairlearn counts a group without positive cases as one with sensitivity 0; such groups (and, if
asked, groups with hardly any) are left out of the comparison and named.
"""

from typing import Any

import numpy as np
from fairlearn.metrics import (
    MetricFrame,
    count,
    equal_opportunity_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from numpy.typing import ArrayLike, NDArray

from training.evaluation.measures import auroc, rounded

Groups = NDArray[np.str_]


def compare(
    truth: ArrayLike, decision: ArrayLike, probability: ArrayLike, groups: Groups, fewest: int = 0
) -> dict[str, Any]:
    """Rates of one decision by group, and how far apart they are.

    Args:
        truth, decision: yes or no per patient; probability: what the decision was made from.
        groups: the group of each patient; patients of group ``""`` belong to none and do not count.
        fewest: positive cases a group must have to be compared; with fewer it is shown and named only.

    Returns:
        `groups` by name (n, prevalence, alert_rate, tpr, fpr, auroc); `equal_opportunity_difference`,
        `tpr_ratio` and `fpr_difference`; `disparate_impact_alert_rate` (smallest alert rate by greatest);
        `disparate_impact`, `alert_rate_ratio` and `prevalence_ratio` (greatest by smallest: how many
        times as often one group's sick are seen, a group is alerted, a group is sick); `not_compared`.
    """
    kept = groups != ""
    held, said = np.asarray(truth, dtype=bool)[kept], np.asarray(decision, dtype=bool)[kept]
    chance, member = np.asarray(probability, dtype=np.float64)[kept], groups[kept]
    if not len(held):
        return {"groups": {}, "not_compared": []}
    frame = MetricFrame(
        metrics={
            "n": count,
            "alert_rate": selection_rate,
            "tpr": true_positive_rate,
            "fpr": false_positive_rate,
        },
        y_true=held,
        y_pred=said,
        sensitive_features=member,
    ).by_group
    table: dict[str, dict[str, Any]] = {}
    compared = np.zeros(len(held), dtype=bool)
    left_out = []
    for name in sorted(str(group) for group in np.unique(member)):
        of_group = member == name
        positives = int(held[of_group].sum())
        row = frame.loc[name]
        table[name] = {
            "n": int(row["n"]),
            "positives": positives,
            "prevalence": rounded(held[of_group].mean()),
            "alert_rate": rounded(row["alert_rate"]),
            "tpr": rounded(row["tpr"]) if positives else None,
            "fpr": rounded(row["fpr"]) if positives < of_group.sum() else None,
            "auroc": rounded(auroc(held[of_group], chance[of_group])),
        }
        if positives < fewest:
            left_out.append(name)
        elif positives:
            compared |= of_group
    found = {"groups": table, "not_compared": left_out}
    return found | _apart(table, left_out) | _exact(held[compared], said[compared], member[compared])


def _apart(table: dict[str, dict[str, Any]], left_out: list[str]) -> dict[str, Any]:
    def of(figure: str) -> list[float]:
        rows = [row for name, row in table.items() if name not in left_out]
        return [row[figure] for row in rows if row[figure] is not None]

    alerts, hits, false, needs = of("alert_rate"), of("tpr"), of("fpr"), of("prevalence")
    return {
        "disparate_impact_alert_rate": rounded(min(alerts) / max(alerts)) if any(alerts) else None,
        "tpr_ratio": rounded(min(hits) / max(hits)) if any(hits) else None,
        "disparate_impact": _times(hits),
        "alert_rate_ratio": _times(alerts),
        "prevalence_ratio": _times(needs),
        "equal_opportunity_difference": rounded(max(hits) - min(hits)) if hits else None,
        "fpr_difference": rounded(max(false) - min(false)) if false else None,
    }


def _times(rates: list[float]) -> float | None:
    return rounded(max(rates) / min(rates)) if rates and min(rates) > 0 else None


def _exact(held: NDArray[np.bool_], said: NDArray[np.bool_], member: Groups) -> dict[str, Any]:
    """The same difference by fairlearn itself, from unrounded rates."""
    if not len(held):
        return {"fairlearn_equal_opportunity_difference": None}
    difference = equal_opportunity_difference(held, said, sensitive_features=member)
    return {"fairlearn_equal_opportunity_difference": rounded(difference)}
