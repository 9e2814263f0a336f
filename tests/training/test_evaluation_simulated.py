"""Simulated patients through the product: the truth stands beside the answers of the same patients."""

import msgspec
import numpy as np
import pytest

from fhir_adapters.chart import PatientChart
from models.assessment import Assessment, Prediction
from models.common.disease import DiseaseInfo
from models.engine import Engine
from training.ensemble.cohort import Simulator
from training.evaluation.predictions import EvaluationDataInvalid
from training.evaluation.simulated import simulated_heldout

COUNT = 60


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.load()


@pytest.fixture(scope="module")
def diseases(simulator: Simulator) -> list[DiseaseInfo]:
    """Those of a bundle, in another order than the knowledge has them."""
    mix = (0.2, 0.2, 0.2, 0.2, 0.2)
    return [
        DiseaseInfo(name, name, name, "g", "A00", "A00.0", (), None, mix, 0.1, name < "c", (), (), ())
        for name in reversed(simulator.tables.ids)
    ]


class Naming:
    """The rules with a differential that always names the same disease, with three quarters."""

    def __init__(self, engine: Engine, named: str) -> None:
        self._engine = engine
        self._named = named

    def __call__(self, chart: PatientChart) -> Assessment:
        named = Prediction(self._named, "", 0.75, (), in_set=True)
        return msgspec.structs.replace(self._engine.assess(chart), common=(named,))


def test_answers_and_truth_are_of_the_same_patients(
    simulator: Simulator, diseases: list[DiseaseInfo]
) -> None:
    engine = Engine.load(simulator.builder.tables.ontology)
    named = diseases[0].id
    held = simulated_heldout(simulator, Naming(engine, named), diseases, count=COUNT, coverage=0.8, seed=11)
    (patients, _), *_ = simulator.batches(COUNT, 11)
    assert held.truth.disease.tolist() == patients.disease.tolist()
    assert held.truth.diseases == tuple(simulator.tables.ids)
    assert held.truth.critical.tolist() == [name < "c" for name in simulator.tables.ids]
    column = list(simulator.tables.ids).index(named)
    assert held.ensemble.disease[:, column].tolist() == [0.75] * COUNT
    assert held.ensemble.disease.sum() == pytest.approx(0.75 * COUNT)
    assert held.ensemble.in_set is not None and held.ensemble.in_set.sum() == COUNT
    assert held.ensemble.coverage == 0.8
    # In patients so told, the simulator's own likelihood is right far more often than by chance.
    assert held.reference is not None
    assert np.mean(held.reference.disease.argmax(axis=1) == held.truth.disease) > 0.2


def test_a_bundle_made_from_other_knowledge_is_refused(
    simulator: Simulator, diseases: list[DiseaseInfo]
) -> None:
    def never(_: PatientChart) -> Assessment:
        raise AssertionError

    with pytest.raises(EvaluationDataInvalid, match="differ in 1 diseases"):
        simulated_heldout(simulator, never, diseases[1:], count=5, coverage=0.9)
