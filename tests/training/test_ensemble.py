"""What is trained is what is served: parity to 1e-5, sets that keep their promise, the same run twice."""

import functools

import numpy as np
import pytest
from crepes import ConformalClassifier
from crepes.extras import hinge
from ensemble_helpers import CONFIG, chart_of, simulator, tiny
from numpy.typing import NDArray

from fhir_adapters.features import Features
from models.common.ensemble import MEMBERS, Outcome
from training.ensemble.cohort import BATCH, Cohort, labels_of, split
from training.ensemble.folds import folds_of
from training.ensemble.members import FOREST_FLOOR, Margins
from training.ensemble.parts import bundle_parts, sensitivity
from training.ensemble.stacking import Pool, fit_logistic, fit_pool, fit_temperature, softmax
from training.ensemble.train import conformal_threshold, member_margins, severity_mix
from training.likelihood import likelihood_margins

COUNT = 120
RULES_LOGIT = -1.25
F64 = NDArray[np.float64]


@functools.cache
def both_ways() -> tuple[list[Features], list[Outcome], Cohort]:
    """New patients, as serving reads and judges their Bundles, and as rows.

    Those whose chart and row differ (`test_simulation_charts`) are left out.
    """
    world = simulator()
    engine = tiny().common_engine(world.builder.tables.ontology)
    ((patients, recorded),) = world.batches(COUNT, 4242)
    rows = world.rows(patients, recorded)
    read = [world.reader.read(chart_of(patients, recorded, row)) for row in range(COUNT)]
    same = []
    for row, features in enumerate(read):
        made = rows.features[row]
        order = np.argsort(made.indices)
        if made.indices[order].tolist() == list(features.index):
            assert made.data[order] == pytest.approx(np.array(features.values), abs=1e-3)
            same.append(row)
    assert len(same) > 0.95 * COUNT
    kept = [read[row] for row in same]
    cohort = Cohort(rows, labels_of(patients)).take(np.array(same))
    return kept, [engine.ensemble.run(features, RULES_LOGIT) for features in kept], cohort


@functools.cache
def trained_margins() -> dict[str, Margins]:
    trained = tiny().trained
    return member_margins(
        trained.likelihood,
        trained.boosted,
        trained.network,
        trained.forest,
        both_ways()[2],
        simulator().reader,
    )


def test_serving_says_what_the_trained_objects_say() -> None:
    _, outcomes, cohort = both_ways()
    rules = np.full(len(cohort), RULES_LOGIT)
    margins, disease, severity, immediate = tiny().trained.pooled(trained_margins(), rules)
    assert np.abs(np.array([outcome.disease for outcome in outcomes]) - disease).max() < 1e-5
    assert np.abs(np.array([outcome.severity for outcome in outcomes]) - severity).max() < 1e-5
    served = 1 / (1 + np.exp(-np.array([outcome.immediate_logit for outcome in outcomes])))
    assert np.abs(served - immediate).max() < 1e-5
    # Margins are of size 10 and more, in single precision.
    assert np.abs(np.array([outcome.margins for outcome in outcomes]) - margins).max() < 1e-3


def test_the_likelihood_of_serving_is_that_of_training() -> None:
    features, outcomes, cohort = both_ways()
    engine = tiny().common_engine(simulator().builder.tables.ontology)
    found = likelihood_margins(tiny().trained.likelihood, cohort.rows, simulator().reader)
    served = np.array([engine.ensemble._likelihood.margins(outcome.evidence) for outcome in outcomes])
    assert len(features) == len(served)
    assert np.abs(served - found).max() < 1e-4


def test_the_shares_of_the_forest_are_those_of_the_trained_one() -> None:
    _, outcomes, _ = both_ways()
    margins = trained_margins()["forest"]
    forest = tiny().trained.forest
    share = np.array([outcome.forest_share for outcome in outcomes])
    assert np.abs(np.log(share[:, :-6] + FOREST_FLOOR) - forest.usual - margins.disease).max() < 1e-4
    assert np.abs(np.log(share[:, -6:-1] + FOREST_FLOOR) - margins.severity).max() < 1e-4


def test_served_contributions_add_up_for_every_disease() -> None:
    """Whatever columns are asked for, the baseline and the items' amounts are the pooled margin."""
    features, outcomes, _ = both_ways()
    ensemble = tiny().common_engine(simulator().builder.tables.ontology).ensemble
    columns = np.arange(0, ensemble.count, 37)
    for read, outcome in zip(features[:25], outcomes[:25], strict=True):
        amounts, baseline = ensemble.explain(outcome, len(read.items), columns, immediate=True)
        assert amounts.shape == (len(read.items), len(columns) + 1)
        total = baseline + amounts.sum(axis=0)
        assert total[:-1].tolist() == pytest.approx(outcome.margins[columns].tolist(), abs=1e-3)
        learned = outcome.immediate_logit - ensemble.stack.immediate[0] * RULES_LOGIT
        assert total[-1] == pytest.approx(learned, abs=1e-3)


def test_the_baseline_is_a_patient_of_whom_nothing_is_recorded() -> None:
    features, outcomes, _ = both_ways()
    ensemble = tiny().common_engine(simulator().builder.tables.ontology).ensemble
    columns = np.arange(5)
    for read, outcome in zip(features[:10], outcomes[:10], strict=True):
        here = [place for place, owner in enumerate(read.owner) if owner < 0]
        nothing = Features(
            tuple(read.index[place] for place in here),
            tuple(read.values[place] for place in here),
            tuple(-1 for _ in here),
            (),
            (),
            (),
            read.emergency,
            None,
            "unknown",
        )
        still = ensemble.run(nothing, RULES_LOGIT)
        _, baseline = ensemble.explain(outcome, len(read.items), columns, immediate=False)
        assert baseline.tolist() == pytest.approx(still.margins[columns].tolist(), abs=1e-3)


# --- conformal sets


def simulated_probabilities(count: int, classes: int, seed: int) -> tuple[F64, NDArray[np.int32]]:
    """Calibrated probabilities and a truth drawn from them."""
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.full(classes, 0.3), size=count)
    edges = probability.cumsum(axis=1)
    truth = (rng.random(count)[:, None] * edges[:, -1:] < edges).argmax(axis=1)
    return probability, truth.astype(np.int32)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_truth_as_often_as_promised(coverage: float) -> None:
    probability, truth = simulated_probabilities(6000, 12, 1)
    threshold = conformal_threshold(probability, truth, coverage)
    others, disease = simulated_probabilities(6000, 12, 2)
    held = others[np.arange(len(disease)), disease] >= threshold
    assert abs(held.mean() - coverage) < 0.02


@pytest.mark.parametrize("count", [57, 120, 1001])
def test_sets_are_those_of_crepes(count: int) -> None:
    probability, truth = simulated_probabilities(count, 12, 3)
    classifier = ConformalClassifier().fit(hinge(probability, np.arange(12), truth))
    others, _ = simulated_probabilities(500, 12, 4)
    sets = classifier.predict_set(hinge(others), confidence=0.9, smoothing=False)
    threshold = conformal_threshold(probability, truth, 0.9)
    assert ((others >= threshold) == sets.astype(bool)).all()


def test_of_too_few_patients_only_the_set_of_everything_keeps_the_promise() -> None:
    probability, truth = simulated_probabilities(5, 12, 3)
    assert conformal_threshold(probability, truth, 0.9) == 0.0


def test_the_sets_of_the_run_cover_its_held_out_patients() -> None:
    found = tiny()
    test = found.data.test
    trained = found.trained
    margins = member_margins(
        trained.likelihood, trained.boosted, trained.network, trained.forest, test, simulator().reader
    )
    _, disease, _, _ = trained.pooled(margins, np.zeros(len(test)))
    held = disease[np.arange(len(test)), test.labels.disease] >= trained.set_threshold
    # 120 patients to calibrate and 120 to test: two standard deviations are 0.08.
    assert abs(held.mean() - CONFIG.coverage) < 0.1


# --- the pool


def test_a_pool_trusts_the_member_that_knows() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 3000)
    knows = (2.0 * np.eye(4)[truth] + rng.normal(0, 1, (3000, 4))).astype(np.float32)
    noise = rng.normal(0, 1, (3000, 4)).astype(np.float32)
    pool = fit_pool([noise, knows], truth, np.ones(3000, dtype=np.float32))
    assert pool.weights[1] > 1.0 and 0 <= pool.weights[0] < 0.2
    yes = truth > 1
    decided = fit_logistic([(yes * 3.0 - 1.5 + rng.normal(0, 1, 3000)).astype(np.float32), noise[:, 0]], yes)
    assert decided.weights[0] > 1.0 and 0 <= decided.weights[1] < 0.2


def test_a_temperature_cools_what_is_too_sure() -> None:
    probability, truth = simulated_probabilities(4000, 6, 9)
    margins = np.log(np.maximum(probability, 1e-9))
    assert fit_temperature(margins, truth.astype(np.int64)) == pytest.approx(1.0, abs=0.08)
    assert fit_temperature(3 * margins, truth.astype(np.int64)) == pytest.approx(3.0, abs=0.25)


def test_pooled_margins_are_weighted_sums() -> None:
    pool = Pool(np.array([2.0, 0.5]), np.array([0.0, 1.0]))
    one, other = np.array([[1.0, 2.0]], dtype=np.float32), np.array([[4.0, -2.0]], dtype=np.float32)
    assert pool.margins([one, other]).tolist() == [[4.0, 4.0]]
    assert softmax(np.array([[1e4, 1e4], [0.0, -1e4]])).tolist() == [[0.5, 0.5], [1.0, 0.0]]


# --- parts, folds, splits


def test_the_parts_of_a_bundle_fit_together() -> None:
    found = tiny()
    assert [disease.id for disease in found.diseases] == list(simulator().tables.ids)
    assert len(found.stack.disease_bias) == len(found.diseases)
    assert found.arrays["knowledge.chance"].shape == (len(found.schema.findings), len(found.diseases))
    assert found.arrays["knowledge.test"].shape[0] == len(found.arrays["knowledge.test_names"])
    for disease, mix in zip(found.diseases, severity_mix(simulator().tables), strict=True):
        assert disease.severity == pytest.approx(tuple(mix))
        assert sum(disease.severity) == pytest.approx(1.0)
    assert not any(array.dtype == object for array in found.arrays.values())


def test_the_same_run_gives_the_same_parts() -> None:
    found = tiny()
    world = simulator()
    _, stack, arrays = bundle_parts(world.knowledge, world.tables, found.trained, CONFIG.coverage)
    assert stack == found.stack
    assert all(np.array_equal(arrays[name], found.arrays[name]) for name in found.arrays)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [(10.0, 0.1, 0.9 * 10 / 9.9), (1.0, 1.0, 0.5), (3.0, 0.4, 3 * 0.6 / 2.6), (1e9, 0.0, 0.99)],
)
def test_likelihood_ratios_become_a_sensitivity(positive: float, negative: float, expected: float) -> None:
    assert sensitivity(positive, negative) == pytest.approx(expected)


def test_no_patient_is_in_two_parts_and_no_world_when_there_are_enough() -> None:
    for count in (100, 1200, 80_000):
        parts = split(count)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    worlds = [set((part // BATCH).tolist()) for part in split(80_000)]
    assert not worlds[0] & worlds[1] and not worlds[1] & worlds[2]


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_folds_are_of_unseen_patients() -> None:
    cohort = tiny().data.train
    seen: list[int] = []
    for inside, outside in folds_of(cohort, CONFIG):
        assert not set(inside.tolist()) & set(outside.tolist())
        assert len(inside) + len(outside) == len(cohort)
        seen += outside.tolist()
    assert sorted(seen) == list(range(len(cohort)))


def test_members_stand_in_one_order() -> None:
    assert tuple(trained_margins()) == MEMBERS
    assert len(tiny().trained.disease.weights) == len(MEMBERS)
