"""Scores of a ranked differential against accepted ICD-10 groups and a reference differential.

The definitions are those of the development set's README; its disease groups are merged as its table of
equivalent codes says, so that a pathology coded in two ways is one disease.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.answers import Answer, Ranking, groups_of, ranked
from training.evaluation.measures import (
    Index,
    bootstrap,
    brier,
    calibration_error,
    curves,
    mean,
    rounded,
)

TOPS = (1, 3, 5, 10)
_NEVER = 10**6
_COUNTED = 0.01
"""A disease counts as named by a differential from this probability on."""


@dataclass(frozen=True)
class Pathologies:
    """The data set's diseases: `merged` gives the group that an ICD-10 group counts as, `own` each one's."""

    merged: Mapping[str, str]
    own: Mapping[str, str]

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Pathologies":
        """From the table ``pathology: {group, accept}``; an own group goes before an equivalent."""
        merged = {row["group"]: row["group"] for row in table.values()}
        for row in table.values():
            for code in row["accept"]:
                merged.setdefault(code, row["group"])
        return cls(merged, {name: row["group"] for name, row in table.items()})

    def name(self, group: str) -> str:
        """What a group counts as."""
        return self.merged.get(group, group)


def rank_in(ranking: Ranking, accepted: set[str]) -> int:
    """The place of the first accepted group, from 1; a million when it is not there."""
    places = (place for place, (group, _) in enumerate(ranking, 1) if group in accepted)
    return next(places, _NEVER)


def differential_figures(
    labels: Sequence[Mapping[str, Any]], answers: Sequence[Answer], pathologies: Pathologies
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Every figure of the differential over labelled cases, and the rank of the true disease of each."""
    plain = [groups_of(answer.differential) for answer in answers]
    merged = [ranked((pathologies.name(group), p) for group, p in ranking) for ranking in plain]
    accepted = [
        {pathologies.name(code) for code in label["icd10_accept"]} | {label["icd10_group"]}
        for label in labels
    ]
    ranks = np.array([rank_in(*pair) for pair in zip(merged, accepted, strict=True)], dtype=np.int64)
    unmerged = np.array(
        [rank_in(ranking, set(label["icd10_accept"])) for ranking, label in zip(plain, labels, strict=True)]
    )
    names = np.array([label["pathology"] for label in labels])
    found: dict[str, Any] = {}
    for k in TOPS:
        hit = ranks <= k
        found[f"top{k}"] = mean(hit)
        found[f"top{k}_ci95"] = bootstrap(partial(_mean_of, hit), len(ranks))
        found[f"top{k}_uncollapsed"] = mean(unmerged <= k)
        found[f"top{k}_macro"] = mean([float(np.mean(hit[names == name])) for name in _order(names)])
    found["mrr"] = mean(1 / ranks)
    found["gtpa@1"] = found["top1"]
    found["gtpa"] = mean(
        [
            any(group in wanted and p > _COUNTED for group, p in ranking)
            for ranking, wanted in zip(merged, accepted, strict=True)
        ]
    )
    found |= _overlap(labels, merged, pathologies)
    confidence = np.clip([ranking[0][1] if ranking else 0.0 for ranking in merged], 0.0, 1.0)
    found["top1_ece"] = rounded(calibration_error(ranks == 1, confidence))
    found["top1_brier"] = rounded(brier(ranks == 1, confidence))
    found["top1_reliability"] = curves(ranks == 1, confidence)["reliability"]
    found["per_pathology_top5"] = {
        str(name): [int((names == name).sum()), mean(ranks[names == name] <= 5)] for name in np.unique(names)
    }
    return found, ranks


def _mean_of(values: NDArray[Any], rows: Index) -> float:
    return float(values[rows].mean())


def _order(names: Any) -> list[str]:
    """The names in the order of their first case: sums come out the same to the last bit."""
    return list(dict.fromkeys(str(name) for name in names))


def _overlap(
    labels: Sequence[Mapping[str, Any]], merged: Sequence[Ranking], pathologies: Pathologies
) -> dict[str, Any]:
    """Overlap with the reference differential, over everything named and over the set's diseases only.

    ``closed`` drops diseases that the set does not know and shares their probability among the rest.
    """
    known = set(pathologies.merged.values())
    open_scores, closed_scores = [], []
    for label, ranking in zip(labels, merged, strict=True):
        wanted = {pathologies.own[name] for name, p in label["differential"] if p > _COUNTED}
        open_scores.append(_agreement({group for group, p in ranking if p > _COUNTED}, wanted))
        inside = [(group, p) for group, p in ranking if group in known]
        total = sum(p for _, p in inside) or 1.0
        named = {group for group, p in inside if p / total > _COUNTED}
        closed_scores.append(_agreement(named, wanted))
    return {
        "ddf1_closed": mean([f1 for f1, _, _ in closed_scores]),
        "ddr_closed": mean([recall for _, recall, _ in closed_scores]),
        "ddp_closed": mean([precision for _, _, precision in closed_scores]),
        "ddf1_open": mean([f1 for f1, _, _ in open_scores]),
    }


def _agreement(named: set[str], wanted: set[str]) -> tuple[float, float, float]:
    """F1, recall and precision of one set against another; nothing named is 0."""
    if not named or not wanted:
        return 0.0, 0.0, 0.0
    both = len(named & wanted)
    recall, precision = both / len(wanted), both / len(named)
    return (2 * precision * recall / (precision + recall) if both else 0.0), recall, precision


def conformal_figures(answers: Sequence[Answer], accepted: Sequence[set[str]]) -> dict[str, Any] | None:
    """Whether an accepted group is in the conformal set, over cases that have accepted groups."""
    pairs = [
        (answer, wanted)
        for answer, wanted in zip(answers, accepted, strict=True)
        if wanted and answer.conformal is not None
    ]
    if not pairs:
        return None
    sizes = [answer.set_size for answer, _ in pairs if answer.set_size is not None]
    return {
        "n": len(pairs),
        "coverage": mean([bool(answer.conformal and answer.conformal & wanted) for answer, wanted in pairs]),
        "mean_size": mean(sizes),
        "empty": mean([not answer.conformal for answer, _ in pairs]),
    }
