"""The figures are those of the reference scorer."""

import math

import pytest

from training.rare.measures import auroc, calibration_error, rank_of, ranking, sensitivity


def test_ids_of_one_disease_count_once() -> None:
    same = {"OMIM:1": "M:1", "ORPHA:1": "M:1", "OMIM:2": "M:2"}
    assert rank_of(["OMIM:1", "ORPHA:1", "OMIM:2"], frozenset({"M:2"}), same) == 2
    assert rank_of(["OMIM:1"], frozenset({"M:2"}), same) == math.inf


def test_only_the_answer_counts_not_what_follows_it() -> None:
    assert rank_of(["A", "B", "C"], frozenset({"C"}), {}, limit=2) == math.inf


def test_micro_counts_cases_and_macro_diseases() -> None:
    found = ranking([(1, "a"), (1, "a"), (1, "a"), (20, "b")])
    assert found["micro1"] == 0.75 and found["macro1"] == 0.5 and found["median_rank"] == 1
    low, high = found["macro1_ci"]  # type: ignore[misc]
    assert low <= 0.5 <= high
    assert ranking([(math.inf, "a")])["median_rank"] is None


def test_the_threshold_lets_the_share_of_false_alarms_through() -> None:
    calm = [n / 100 for n in range(100)]
    found, threshold = sensitivity([0.94, 0.95, 0.99], calm, 0.05)
    assert threshold == 0.94 and found == pytest.approx(2 / 3)


def test_calibration_error_and_auroc_on_hand_worked_values() -> None:
    assert calibration_error([0.75, 0.75], [0.25, 0.25], balanced=True) == pytest.approx(0.25)
    assert calibration_error([1.0], [0.0], balanced=False) == 0
    assert auroc([0.9, 0.5], [0.5, 0.1]) == pytest.approx(0.875)
