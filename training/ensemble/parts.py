"""The parts of a model bundle from a finished training run: arrays, stack, diseases.

Responsible for what serving needs of the knowledge beside the members: P(finding | disease), the tests
as chances of a positive result, names and codes.  Writing and signing is `models.bundle`.
"""

import numpy as np
from numpy.typing import NDArray

from models.common.disease import DiseaseInfo
from models.common.ensemble import Stack
from models.knowledge.schema import Knowledge
from training.ensemble.export import Arrays, boosted_arrays, forest_arrays, network_arrays
from training.ensemble.members import FOREST_FLOOR
from training.ensemble.train import Trained
from training.simulation.tables import Tables

CRITICAL = 0.3
"""Chance of needing attention within minutes, in the gravest grade, from which a miss is critical."""
USUAL_POSITIVE = 0.1
"""P(positive test) in a disease that says nothing of the test.  Grade C: set by this project."""
NOT_ASKED = ("test",)


def bundle_parts(
    knowledge: Knowledge, tables: Tables, trained: Trained, coverage: float
) -> tuple[tuple[DiseaseInfo, ...], Stack, Arrays]:
    """Diseases, stack and arrays of the bundle."""
    diseases = disease_infos(knowledge, tables, trained)
    width = len(tables.schema.names())
    arrays: Arrays = {
        **trained.likelihood,
        **boosted_arrays(trained.boosted, len(diseases), width),
        **forest_arrays(trained.forest, width),
        **network_arrays(trained.network),
        **knowledge_arrays(knowledge, tables),
    }
    stack = Stack(
        disease=_four(trained.disease.weights),
        disease_bias=tuple(trained.disease.bias.tolist()),
        disease_temperature=trained.disease_temperature,
        severity=_four(trained.severity.weights),
        severity_bias=tuple(trained.severity.bias.tolist()),
        severity_temperature=trained.severity_temperature,
        immediate=_five(trained.immediate.weights),
        immediate_bias=float(trained.immediate.bias[0]),
        set_threshold=trained.set_threshold,
        coverage=coverage,
        similarity=trained.similarity,
        forest_floor=FOREST_FLOOR,
    )
    return diseases, stack, arrays


def _four(weights: NDArray[np.float64]) -> tuple[float, float, float, float]:
    one, two, three, four = weights.tolist()
    return one, two, three, four


def _five(weights: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    one, two, three, four, five = weights.tolist()
    return one, two, three, four, five


def disease_infos(knowledge: Knowledge, tables: Tables, trained: Trained) -> tuple[DiseaseInfo, ...]:
    """The diseases in the order of the columns."""
    weight = tables.weight.mean(axis=0)
    immediate = (weight * tables.immediate).sum(axis=1)
    found = []
    for number, disease in enumerate(knowledge.diseases):
        mix = trained.mix[number]
        found.append(
            DiseaseInfo(
                id=disease.id,
                en=disease.name.en,
                es=disease.name.es,
                group=disease.group,
                icd10=disease.icd10[0],
                icd10cm=disease.icd10cm[0] if disease.icd10cm else disease.icd10[0],
                also=disease.icd10[1:],
                snomed=disease.snomed,
                severity=(float(mix[0]), float(mix[1]), float(mix[2]), float(mix[3]), float(mix[4])),
                immediate=float(immediate[number]),
                critical=bool(tables.immediate[number].max() >= CRITICAL),
                recommend=disease.recommend,
                tests=tuple((row[0], row[1], row[2]) for row in disease.tests),
                mimics=disease.mimics,
            )
        )
    return tuple(found)


def knowledge_arrays(knowledge: Knowledge, tables: Tables) -> Arrays:
    """P(finding | disease), which findings can be asked, their labels, and P(positive test | disease)."""
    chance = tables.mean_chance()
    findings = {row.key for row in knowledge.findings}
    names = sorted({row[0] for d in knowledge.diseases for row in d.tests if row[0] not in findings})
    place = {name: number for number, name in enumerate(names)}
    test = np.full((len(names), len(knowledge.diseases)), np.nan)
    for column, disease in enumerate(knowledge.diseases):
        for name, positive, negative, _, _ in disease.tests:
            if name in place:
                test[place[name], column] = sensitivity(positive, negative)
    usual = np.array([_usual(knowledge, name) for name in names])
    return {
        "knowledge.chance": chance.astype(np.float16),
        "knowledge.asked_from": np.array(
            [
                np.inf if row.kind in NOT_ASKED else knowledge.asked_from.get(row.key, 0.0)
                for row in knowledge.findings
            ],
            dtype=np.float32,
        ),
        "knowledge.test_pairs": _test_pairs(knowledge, place),
        "knowledge.labels": np.array([row.label for row in knowledge.findings]),
        "knowledge.test": np.where(np.isnan(test), usual[:, None], test).astype(np.float32),
        "knowledge.test_names": np.array(names),
    }


def _test_pairs(knowledge: Knowledge, place: dict[str, int]) -> NDArray[np.int32]:
    """Which test the knowledge says to tell which two diseases apart [P, 3]."""
    number = {disease.id: column for column, disease in enumerate(knowledge.diseases)}
    pairs = {
        (place[row[0]], number[disease.id], number[other])
        for disease in knowledge.diseases
        for row in disease.tests
        if row[0] in place
        for other in row[3]
        if other in number  # a run may be of some of the diseases
    }
    return np.array(sorted(pairs), dtype=np.int32).reshape(-1, 3)


def sensitivity(positive: float, negative: float) -> float:
    """P(positive | disease) of a test with likelihood ratios LR+ and LR-.

    From LR+ = sens / (1 - spec) and LR- = (1 - sens) / spec.
    """
    if positive - negative < 1e-6:
        return 0.5
    return min(max(positive * (1 - negative) / (positive - negative), 0.01), 0.99)


def _usual(knowledge: Knowledge, name: str) -> float:
    """P(positive) without the disease: the mean of sens / LR+ over the diseases that list the test."""
    rates = [
        sensitivity(row[1], row[2]) / max(row[1], 1.0)
        for disease in knowledge.diseases
        for row in disease.tests
        if row[0] == name
    ]
    return float(np.clip(np.mean(rates), 0.01, 0.9)) if rates else USUAL_POSITIVE
