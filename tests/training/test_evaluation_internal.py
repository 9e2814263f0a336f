"""Internal figures: what was counted by hand comes out, and arrays that do not fit are refused."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import predictions_of_four, seeded, truth_of_four
from sklearn.metrics import f1_score, roc_auc_score

from training.evaluation.groups import compare
from training.evaluation.internal import evaluate_internal
from training.evaluation.measures import auroc, bootstrap, calibration_error, macro_f1
from training.evaluation.predictions import (
    BANDS,
    EvaluationDataInvalid,
    HeldOut,
    age_bands,
    load_heldout,
    save_heldout,
)


def test_four_patients_score_as_counted_by_hand() -> None:
    found = evaluate_internal(HeldOut(truth_of_four(), predictions_of_four()), times=20)
    figures = found["figures"]
    assert (figures["top1"], figures["top3"]) == (0.75, 1.0)
    # F1 of the first disease: well 2/3 (one false), sepsis 2/3 (one missed), cold 1.
    assert figures["disease_macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=1e-4)
    assert figures["severity_macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=1e-4)
    assert figures["critical_patient_recall"] == 0.5
    assert figures["critical_disease_top5"] == 1.0
    assert figures["no_disease_npv"] == 0.5
    assert found["no_disease"] == {"called": 2, "in_need": 1, "in_need_share": 0.5}
    assert (figures["mild_disease_precision"], figures["mild_disease_specificity"]) == (1.0, 1.0)
    # In need 0.9 and 0.15, not in need 0.1 and 0.2: three of four pairs in the right order.
    assert figures["immediate_auroc"] == 0.75
    assert figures["immediate_brier"] == pytest.approx((0.01 + 0.01 + 0.7225 + 0.04) / 4, abs=1e-4)
    assert figures["disease_log_loss"] == pytest.approx(
        -sum(math.log(p) for p in (0.8, 0.6, 0.2, 0.6)) / 4, abs=1e-4
    )
    assert found["severity"]["confusion"][3] == [1, 0, 0, 1, 0]
    assert found["per_disease"]["sepsis"] == {
        "n": 2,
        "critical": True,
        "f1": 0.6667,
        "top5": 1.0,
        "taken_for": "well",
    }


def test_conformal_sets_are_held_against_their_promise() -> None:
    found = evaluate_internal(HeldOut(truth_of_four(), predictions_of_four()), times=20)["conformal"]
    assert (found["coverage"], found["coverage_gap"]) == (0.75, 0.15)
    assert (found["mean_size"], found["critical_recall"]) == (1.5, 0.5)
    assert {name: count for name, count in found["sizes"].items() if count} == {"1": 2, "2": 2}
    assert found["by_severity"]["acute-disease"] == {"n": 2, "coverage": 0.5, "set_size": 2.0}


def test_a_model_without_conformal_sets_has_no_such_figures() -> None:
    model = dataclasses.replace(predictions_of_four(), in_set=None)
    found = evaluate_internal(HeldOut(truth_of_four(), model), times=5)
    assert "conformal" not in found
    assert "coverage" not in found["subgroups"]["sex"]["groups"]["female"]


def test_groups_with_few_in_need_are_shown_but_not_compared() -> None:
    found = evaluate_internal(HeldOut(truth_of_four(), predictions_of_four()), times=5)["subgroups"]["sex"]
    assert found["groups"]["female"]["tpr"] == 1.0
    assert found["groups"]["male"]["tpr"] == 0.0
    assert found["not_compared"] == ["female", "male"]
    assert found["equal_opportunity_difference"] is None


def test_fairness_between_two_groups_as_counted_by_hand() -> None:
    groups = np.repeat(np.array(["a", "b"]), 10)
    truth = np.tile(np.repeat([True, False], 5), 2)
    # a: 4 of 5 in need called and 1 of 5 others; b: 2 of 5 and 0 of 5.
    called = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    found = compare(truth, called, called.astype(float), groups, fewest=5)
    assert found["equal_opportunity_difference"] == pytest.approx(0.4)
    assert found["fairlearn_equal_opportunity_difference"] == pytest.approx(0.4)
    assert found["disparate_impact"] == 2.0
    assert (found["alert_rate_ratio"], found["prevalence_ratio"]) == (2.5, 1.0)
    assert found["disparate_impact_alert_rate"] == 0.4
    assert found["fpr_difference"] == 0.2


def test_a_group_without_anybody_in_need_does_not_count_as_one_that_is_missed() -> None:
    groups = np.array(["a", "a", "b", "b"])
    found = compare([True, False, False, False], [True, False, False, False], [1, 0, 0, 0], groups)
    assert found["groups"]["b"]["tpr"] is None
    assert found["fairlearn_equal_opportunity_difference"] == 0.0


def test_ablations_are_compared_on_the_same_patients() -> None:
    found = evaluate_internal(seeded(), times=50)
    (ablation,) = found["ablations"]
    assert ablation["name"] == "without trees"
    assert ablation["ensemble_better"]
    assert ablation["disease_log_loss"]["ci95"][0] < ablation["disease_log_loss"]["difference"] < 0
    assert ablation["top1"]["difference"] > 0
    assert found["reference"] == "reference"
    assert list(found["models"]) == ["the ensemble", "reference", "without trees"]


def test_the_same_seed_gives_the_same_figures_and_intervals_that_hold_them() -> None:
    first, again = evaluate_internal(seeded(), times=50), evaluate_internal(seeded(), times=50)
    assert first == again
    low, high = first["intervals"]["top1"]
    assert low < first["figures"]["top1"] < high
    assert not any(name.endswith("_ece") for name in first["intervals"])
    assert list(first["subgroups"]["age_band"]["groups"])[:2] == ["0-28d", "1-2m"]


def test_areas_and_macro_f1_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    true, said = rng.integers(0, 6, 100), rng.integers(0, 8, 100)
    expected = f1_score(true, said, labels=np.unique(true), average="macro", zero_division=0.0)
    assert macro_f1(true, said) == pytest.approx(expected)
    truth, score = rng.random(200) < 0.3, rng.integers(0, 20, 200) / 20
    assert auroc(truth, score) == pytest.approx(roc_auc_score(truth, score))
    assert math.isnan(auroc([True, True], [0.1, 0.2]))


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    # Bin 0.2: says 0.2, half true, two patients; bin 0.9: says 0.9, all true, two patients.
    assert calibration_error([1, 0, 1, 1], [0.2, 0.2, 0.9, 0.9]) == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)


def test_macro_f1_is_over_the_classes_present_only() -> None:
    assert macro_f1(np.array([0, 0, 1]), np.array([0, 2, 1])) == pytest.approx((2 / 3 + 1) / 2)


def test_a_bootstrap_of_what_cannot_be_computed_has_no_interval() -> None:
    assert bootstrap(lambda _: math.nan, 10, times=5) is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("severity", np.zeros((4, 4), dtype=np.float32), r"severity must have the shape \(4, 5\)"),
        ("immediate", np.array([0, 0, 0, 1.5], dtype=np.float32), "immediate must hold probabilities"),
        ("disease", np.full((4, 3), 0.5, dtype=np.float32), "rows of disease must not sum to more than 1"),
        (
            "severity_decision",
            np.array([0, 0, 0, 5], dtype=np.int8),
            "severity_decision must lie from 0 to 4",
        ),
        ("coverage", 1.0, "coverage must lie between 0 and 1"),
    ],
)
def test_predictions_that_do_not_fit_are_refused_by_name(field: str, value: object, message: str) -> None:
    with pytest.raises(EvaluationDataInvalid, match=message):
        dataclasses.replace(predictions_of_four(), **{field: value})


def test_predictions_of_other_patients_are_refused() -> None:
    other = seeded(count=10).ensemble
    with pytest.raises(EvaluationDataInvalid, match="give the same patients and diseases"):
        HeldOut(truth_of_four(), other)
    with pytest.raises(EvaluationDataInvalid, match="a name of its own"):
        HeldOut(truth_of_four(), predictions_of_four("a"), ablations=(predictions_of_four("a"),))


def test_held_out_predictions_survive_their_file_with_the_same_bytes(tmp_path: Path) -> None:
    held = seeded(count=40)
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_heldout(first, held)
    read = load_heldout(first)
    save_heldout(second, read)
    assert first.read_bytes() == second.read_bytes()
    assert read.about == held.about
    assert [model.name for model in read.models()] == [model.name for model in held.models()]
    assert (read.ensemble.disease == held.ensemble.disease).all()
    assert read.reference is not None and len(read.ablations) == 1


def test_any_other_file_is_refused_without_showing_its_content(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    path.write_text("secret", encoding="utf-8")
    with pytest.raises(
        EvaluationDataInvalid, match=r"other\.npz is not a file of held-out predictions"
    ) as told:
        load_heldout(path)
    assert "secret" not in str(told.value)


def test_ages_fall_into_the_bands_of_the_knowledge() -> None:
    bands = age_bands(np.array([0.01, 0.5, 4.9, 5.0, 39.9, 40.0, 99.0]))
    assert [BANDS[band] for band in bands] == ["0-28d", "3-11m", "1-4", "5-11", "18-39", "40-64", "80+"]
