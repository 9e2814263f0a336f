"""The figures on other people's data: emergency visits, synthetic presentations, outpatient records.

The development sets stay beside the repository (``../shared/clinical``) and are never trained or tuned
on; what is missing is skipped with the reason.  Definitions are those of the sets' reference scorer.
"""

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.answers import Answer, Runner, groups_of
from training.evaluation.differential import (
    TOPS,
    Pathologies,
    conformal_figures,
    differential_figures,
)
from training.evaluation.groups import compare
from training.evaluation.measures import auroc, binary, curves, mean, mean_ranks, rounded

Labels = Sequence[Mapping[str, Any]]
Bands = tuple[tuple[int, int], ...]
KTAS_BANDS: Bands = ((0, 39), (40, 64), (65, 120))
DDX_BANDS: Bands = ((0, 17), (18, 39), (40, 64), (65, 120))
KTAS_TARGETS = ("critical", "emergency", "admitted_or_died", "icu_surgery_death", "icu_or_death")
SENSITIVITIES = (0.8, 0.9, 0.95)
CODE_TABLE = Path("bench", "ddx_icd.json")
"""Beside the directory of the sets: which ICD-10 groups are one pathology of DDXPlus."""


class SetAbsent(Exception):
    """A development set is not where it was looked for; the message says what is missing."""


def evaluate_external(runner: Runner, directory: Path) -> dict[str, Any]:
    """The external part of the report: per set its figures, or ``{"skipped": reason}``."""
    found: dict[str, Any] = {}
    for name, measure in (("ktas", _ktas), ("ddxplus", _ddxplus), ("synthea", _synthea)):
        try:
            found[name] = measure(runner, directory)
        except SetAbsent as reason:
            found[name] = {"skipped": str(reason)}
    return found


def _ktas(runner: Runner, directory: Path) -> dict[str, Any]:
    bundles, labels = load_set(directory, "ktas")
    answers, reasons = runner.answers(bundles)
    return _running(answers, reasons) | score_ktas(labels, answers)


def _ddxplus(runner: Runner, directory: Path) -> dict[str, Any]:
    bundles, labels = load_set(directory, "ddxplus")
    table = directory.parent / CODE_TABLE
    if not table.is_file():
        raise SetAbsent(f"{table.name} (equivalent codes of the set) is not in ../{CODE_TABLE.parent}")
    pathologies = Pathologies.of(json.loads(table.read_text(encoding="utf-8")))
    answers, reasons = runner.answers(bundles)
    return _running(answers, reasons) | score_ddxplus(labels, answers, pathologies)


def _synthea(runner: Runner, directory: Path) -> dict[str, Any]:
    paths = sorted((directory / "synthea").glob("*.json.gz"))
    if not paths:
        raise SetAbsent("no synthea/*.json.gz among the development sets")
    answers, reasons = runner.answers([gzip.decompress(path.read_bytes()) for path in paths])
    return _running(answers, reasons) | {
        "with_differential": sum(bool(answer.differential) for answer in answers),
        "with_severity": sum(answer.severity is not None for answer in answers),
        "alert_rate": mean([answer.immediate for answer in answers]),
        "severity": dict(sorted(Counter(str(answer.severity) for answer in answers).items())),
    }


def load_set(directory: Path, name: str) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Bundles (as sent) and labels of one set, in the same order; raises `SetAbsent`."""
    bundles, labels = directory / f"{name}_bundles.ndjson.gz", directory / f"{name}_labels.jsonl"
    for path in (bundles, labels):
        if not path.is_file():
            raise SetAbsent(f"{path.name} is not among the development sets (--clinical names their place)")
    bodies = gzip.decompress(bundles.read_bytes()).splitlines()
    rows = [json.loads(line) for line in labels.read_bytes().splitlines()]
    if [json.loads(body)["id"] for body in bodies] != [row["id"] for row in rows]:
        raise SetAbsent(f"{bundles.name} and {labels.name} do not hold the same cases in the same order")
    return bodies, rows


def _running(answers: Sequence[Answer], reasons: dict[str, int]) -> dict[str, Any]:
    return {
        "n": len(answers),
        "failures": sum(answer.failed for answer in answers),
        "failure_reasons": reasons,
        "atypical_share": mean([answer.atypical for answer in answers]),
    }


def score_ktas(labels: Labels, answers: Sequence[Answer]) -> dict[str, Any]:
    """Emergency visits: immediate attention against five outcomes, and the emergency diagnosis."""
    chance = np.array([answer.probability for answer in answers])
    called = np.array([answer.immediate for answer in answers])
    found: dict[str, Any] = {"n": len(labels)}
    for target in KTAS_TARGETS:
        true = np.array([label[target] for label in labels], dtype=bool)
        found[target] = binary(true, called, chance) | {
            f"specificity_at_sens_{wanted}": specificity_at(true, chance, wanted) for wanted in SENSITIVITIES
        }
    critical = np.array([label["critical"] for label in labels], dtype=bool)
    coded = np.array([label["cc_coded"] for label in labels], dtype=bool)
    for target in ("critical", "emergency"):
        true = np.array([label[target] for label in labels], dtype=bool)
        found[f"{target}_subgroups"] = subgroups(labels, true, called, chance, KTAS_BANDS)
    found["critical_curves"] = curves(critical, chance)
    levels = np.array([label["ktas_expert"] for label in labels])
    found["rank_correlation_with_level"] = rounded(rank_correlation(-levels, chance))
    found["severity_by_level"] = {
        str(level): dict(Counter(str(answers[int(row)].severity) for row in np.flatnonzero(levels == level)))
        for level in range(1, 6)
    }
    found["diagnosis"] = _diagnosis(labels, answers)
    found["critical_auroc_coded_complaint"] = rounded(auroc(critical[coded], chance[coded]))
    found["critical_auroc_text_only_complaint"] = rounded(auroc(critical[~coded], chance[~coded]))
    found["conformal"] = conformal_figures(answers, [set(label["icd10_accept"]) for label in labels])
    return found


def _diagnosis(labels: Labels, answers: Sequence[Answer]) -> dict[str, Any]:
    """Whether the emergency department's diagnosis is among the first k groups, where it has a code."""
    rankings = [
        (set(label["icd10_accept"]), [group for group, _ in groups_of(answer.differential)])
        for label, answer in zip(labels, answers, strict=True)
        if label["icd10_accept"]
    ]
    if not rankings:
        return {}
    hits = {
        f"top{k}": mean([bool(wanted.intersection(groups[:k])) for wanted, groups in rankings]) for k in TOPS
    }
    return {"n": len(rankings)} | hits


def score_ddxplus(labels: Labels, answers: Sequence[Answer], pathologies: Pathologies) -> dict[str, Any]:
    """Synthetic presentations: differential, severity class and immediate attention."""
    found, ranks = differential_figures(labels, answers, pathologies)
    strict = [
        answer.severity == label["severity_class"] for label, answer in zip(labels, answers, strict=True)
    ]
    lenient = np.array(
        [
            answer.severity in label["severity_class_accept"]
            for label, answer in zip(labels, answers, strict=True)
        ]
    )
    classes = np.array([label["severity_class"] for label in labels])
    found["severity_accuracy"] = mean(strict)
    found["severity_accuracy_lenient"] = mean(lenient)
    found["severity_accuracy_lenient_macro"] = mean(
        [float(lenient[classes == name].mean()) for name in dict.fromkeys(classes.tolist())]
    )
    confusion = Counter(
        (str(label["severity_class"]), str(answer.severity))
        for label, answer in zip(labels, answers, strict=True)
    )
    found["severity_confusion"] = {
        f"{true} -> {said}": number for (true, said), number in sorted(confusion.items())
    }
    true = np.array([label["immediate"] for label in labels], dtype=bool)
    called = np.array([answer.immediate for answer in answers])
    chance = np.array([answer.probability for answer in answers])
    found["immediate"] = binary(true, called, chance)
    found["immediate_curves"] = curves(true, chance)
    found["immediate_subgroups"] = subgroups(labels, true, called, chance, DDX_BANDS)
    found["subgroups"] = {
        name: {"n": int((member == name).sum()), "top1": mean(ranks[member == name] <= 1)}
        | {"top5": mean(ranks[member == name] <= 5)}
        for member in groups(labels, DDX_BANDS).values()
        for name in dict.fromkeys(member.tolist())
        if name
    }
    found["conformal"] = conformal_figures(answers, [set(label["icd10_accept"]) for label in labels])
    return {"n": len(labels)} | found


def groups(labels: Labels, bands: Bands) -> dict[str, NDArray[np.str_]]:
    """The group of every case by sex and by age band; ``""`` where it belongs to none."""

    def band(age: int) -> str:
        return next((f"{low}-{high}" for low, high in bands if low <= age <= high), "")

    sexes = [label["sex"] if label["sex"] in ("female", "male") else "" for label in labels]
    return {"sex": np.array(sexes), "age": np.array([band(label["age"]) for label in labels])}


def subgroups(labels: Labels, true: Any, called: Any, chance: Any, bands: Bands) -> dict[str, Any]:
    """`training.evaluation.groups.compare` by sex and by age band."""
    return {kind: compare(true, called, chance, member) for kind, member in groups(labels, bands).items()}


def specificity_at(true: Any, chance: Any, sensitivity: float) -> float | None:
    """Specificity at the highest cut of the probability that reaches a sensitivity."""
    for cut in np.unique(chance)[::-1]:
        called = chance >= cut
        if true.any() and called[true].mean() >= sensitivity:
            return mean(~called[~true])
    return None


def rank_correlation(one: Any, other: Any) -> float:
    """Spearman's correlation with mean ranks for ties; nan when one of them is constant."""
    ranks = mean_ranks(one), mean_ranks(other)
    if not ranks[0].std() or not ranks[1].std():
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
