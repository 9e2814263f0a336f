"""Held-out simulated patients through the product itself: FHIR Bundles in, its own answers as predictions.

This needs a model bundle and no training run: anybody can make the internal part again.  Patients come
from a seed that no training uses.  The reference is the simulator's likelihood with its own base rates,
taking findings as independent within a disease: near the Bayes optimum, not the optimum.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fhir_adapters.chart_builder import moment_of
from fhir_adapters.decode import read_bundle
from models.assessment import SEVERITIES, Assessment
from models.common.disease import DiseaseInfo
from training.ensemble.cohort import Simulator, labels_of
from training.ensemble.stacking import softmax
from training.ensemble.train import severity_mix
from training.evaluation.answers import Assess
from training.evaluation.predictions import EvaluationDataInvalid, HeldOut, Predictions, Truth, truth_of
from training.likelihood import likelihood_arrays, likelihood_margins
from training.simulation.bundles import AT
from training.simulation.population import Patients
from training.simulation.rows import Rows, stack_rows

SEED = 7_919_003
"""Of the patients the report is about; training and tuning draw theirs from other seeds."""
THRESHOLD = 0.2
"""Probability from which the reference calls for immediate attention: the policy's default."""
Say = Callable[[str], None]


def simulated_heldout(
    simulator: Simulator,
    assess: Assess,
    diseases: Sequence[DiseaseInfo],
    *,
    count: int,
    coverage: float,
    seed: int = SEED,
    say: Say = lambda _: None,
) -> HeldOut:
    """Simulate `count` patients, have them assessed one by one, and put the truth beside the answers.

    Args:
        diseases: those of the model bundle; must be the simulator's, in any order.
        coverage: what the bundle's conformal sets promise.
        say: is told of progress.

    Raises `EvaluationDataInvalid` when bundle and knowledge speak of different diseases.
    """
    ids = list(simulator.tables.ids)
    known = {info.id: info for info in diseases}
    if set(known) != set(ids):
        apart = sorted(set(known) ^ set(ids))
        raise EvaluationDataInvalid(
            f"the bundle and the installed knowledge differ in {len(apart)} diseases ({', '.join(apart[:3])} "
            "...): evaluate with the knowledge it was trained on, or train again"
        )
    column = {name: number for number, name in enumerate(ids)}
    rows: list[Rows] = []
    patients: list[Patients] = []
    answers = _Answers(count, len(ids))
    for part, recorded in simulator.batches(count, seed):
        rows.append(simulator.rows(part, recorded))
        patients.append(part)
        for bundle in simulator.writer.bundles(part, recorded, start=answers.filled):
            read = read_bundle(msgspec.json.encode(bundle))
            chart = simulator.builder.build(
                read, at=moment_of(read) or AT, patient_id=None, retrospective=True
            )
            answers.take(assess(chart), column)
            if answers.filled % 1000 == 0:
                say(f"{answers.filled} of {count} simulated patients assessed")
    truth = _truth([known[name] for name in ids], patients)
    return HeldOut(
        truth=truth,
        ensemble=answers.predictions(coverage),
        reference=_reference(simulator, stack_rows(rows)),
        about=(("patients", f"{count} simulated, seed {seed}, read as FHIR Bundles by the product itself"),),
    )


def _truth(diseases: Sequence[DiseaseInfo], patients: Sequence[Patients]) -> Truth:
    labels = [labels_of(part) for part in patients]

    def all_of(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part in labels])

    return truth_of(
        diseases,
        disease=all_of("disease").astype(np.int32),
        severity=all_of("severity").astype(np.int8),
        immediate=all_of("immediate").astype(bool),
        setting=all_of("setting").astype(np.int8),
        age=all_of("age").astype(np.float64),
        female=all_of("female").astype(bool),
    )


class _Answers:
    """Assessments as the rows of a `Predictions`; a disease that is not listed has probability 0."""

    def __init__(self, count: int, width: int) -> None:
        self.filled = 0
        self._disease = np.zeros((count, width), dtype=np.float32)
        self._in_set = np.zeros((count, width), dtype=bool)
        self._severity = np.zeros((count, len(SEVERITIES)), dtype=np.float32)
        self._decision = np.zeros(count, dtype=np.int8)
        self._immediate = np.zeros(count, dtype=np.float32)
        self._called = np.zeros(count, dtype=bool)

    def take(self, assessment: Assessment, column: dict[str, int]) -> None:
        row = self.filled
        for prediction in assessment.common:
            self._disease[row, column[prediction.id]] = prediction.probability
            self._in_set[row, column[prediction.id]] = prediction.in_set
        self._severity[row] = assessment.severity_probabilities
        self._decision[row] = SEVERITIES.index(assessment.severity)
        self._immediate[row] = assessment.immediate_probability
        self._called[row] = assessment.immediate
        self.filled += 1

    def predictions(self, coverage: float) -> Predictions:
        return Predictions(
            "the product",
            self._disease,
            self._severity,
            self._decision,
            self._immediate,
            self._called,
            self._in_set,
            coverage,
        )


def _reference(simulator: Simulator, rows: Rows) -> Predictions:
    """The simulator's likelihood: severity and immediate attention as its diseases imply them."""
    tables = simulator.tables
    margins = likelihood_margins(likelihood_arrays(tables), rows, simulator.reader)
    disease = softmax(margins.astype(np.float64))
    severity = disease @ severity_mix(tables)
    urgent = disease @ (tables.weight.mean(axis=0) * tables.immediate).sum(axis=1)
    return Predictions(
        "likelihood of the simulator, approximation of the Bayes optimum",
        disease.astype(np.float32),
        severity.astype(np.float32),
        severity.argmax(axis=1).astype(np.int8),
        urgent.astype(np.float32),
        urgent > THRESHOLD,
    )
