"""What to find out next: information as a textbook computes it, never about what the chart tells."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from bundle_helpers import tiny_arrays, tiny_diseases, tiny_schema
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fhir_adapters.features import Features
from models.common.next_steps import LEAST_GAIN, NextSteps, information


def entropy(*shares: float) -> float:
    return -sum(share * math.log2(share) for share in shares if share)


def of_chances(chance: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.array([[entropy(float(p), 1 - float(p)) for p in row] for row in chance], dtype=np.float32)


def test_information_is_mutual_information_by_hand() -> None:
    chance = np.array([[0.9, 0.1], [1.0, 0.0], [0.4, 0.4]], dtype=np.float32)
    even = np.array([0.5, 0.5], dtype=np.float32)
    gain = information(chance, of_chances(chance), even)
    # H(1/2) - H(0.9) = 1 - 0.469; a certain answer tells all, an equal one nothing.
    assert gain.tolist() == pytest.approx([0.5310, 1.0, 0.0], abs=1e-4)
    # Three in four: H(0.7) - H(0.9) for the first.
    uneven = np.array([0.75, 0.25], dtype=np.float32)
    expected = entropy(0.7, 0.3) - entropy(0.9, 0.1)
    assert information(chance, of_chances(chance), uneven)[0] == pytest.approx(expected, abs=1e-5)


@given(
    st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
)
def test_information_is_what_the_answer_removes_of_the_doubt(
    chances: list[float], weights: list[float]
) -> None:
    weight = np.array(weights, dtype=np.float32) / np.float32(sum(weights))
    chance = np.array([chances], dtype=np.float32)
    gain = float(information(chance, of_chances(chance), weight)[0])
    before = entropy(*weight.tolist())
    after = 0.0
    for answer in (chance[0], 1 - chance[0]):
        joint = weight * answer
        after += float(joint.sum()) * entropy(*(joint / joint.sum()).tolist())
    assert gain == pytest.approx(before - after, abs=2e-4)
    assert -1e-5 <= gain <= 1


def asked(
    chance: Sequence[Sequence[float]], disease: Sequence[float], known: Sequence[int] = ()
) -> list[str]:
    """The codes of the best steps over fever, cough and one test."""
    schema = tiny_schema()
    arrays = tiny_arrays(schema) | {
        "knowledge.asked_from": np.array([0.0, 0.0], dtype=np.float32),
        "knowledge.test": np.array([chance[2]], dtype=np.float32),
    }
    steps = NextSteps(schema, np.array(chance[:2], dtype=np.float32), arrays, ("blood-cultures",))
    ones = tuple(1.0 for _ in known)
    features = Features(tuple(known), ones, tuple(0 for _ in known), (), (), (), False, None, "unknown")
    probability = np.array(disease)
    order = np.argsort(-probability, kind="stable")
    found = steps.best(features, probability, order, tiny_diseases())
    assert all(step.gain >= LEAST_GAIN for step in found)
    assert [step.kind for step in found] == sorted(step.kind for step in found)
    return [step.code for step in found]


def test_the_question_that_tells_the_leading_diseases_apart_comes_first() -> None:
    fever, cough, test = (0.5, 0.6, 0.5), (0.9, 0.1, 0.5), (0.1, 0.9, 0.5)
    assert asked((fever, cough, test), (0.5, 0.5, 0.0)) == ["HP:0012735", "blood-cultures"]
    fever = (0.99, 0.01, 0.5)
    assert asked((fever, cough, test), (0.5, 0.5, 0.0)) == ["HP:0001945", "HP:0012735", "blood-cultures"]


def test_what_the_chart_tells_is_not_asked_again() -> None:
    table = ((0.99, 0.01, 0.5), (0.9, 0.1, 0.5), (0.1, 0.9, 0.5))
    assert asked(table, (0.5, 0.5, 0.0), known=[0]) == ["HP:0012735", "blood-cultures"]
    assert asked(table, (0.5, 0.5, 0.0), known=[0, 1]) == ["blood-cultures"]


def test_nothing_is_asked_when_the_disease_is_clear_or_no_answer_differs() -> None:
    table = ((0.99, 0.01, 0.5), (0.9, 0.1, 0.5), (0.1, 0.9, 0.5))
    assert asked(table, (1.0, 0.0, 0.0)) == []
    assert asked(((0.5,) * 3, (0.2,) * 3, (0.7,) * 3), (0.4, 0.3, 0.3)) == []


def test_a_step_names_the_two_diseases_that_it_tells_apart() -> None:
    schema = tiny_schema()
    chance = np.array([[0.9, 0.1, 0.5], [0.5, 0.5, 0.5]], dtype=np.float32)
    steps = NextSteps(schema, chance, tiny_arrays(schema), ("blood-cultures",))
    nothing = Features((), (), (), (), (), (), False, None, "unknown")
    probability = np.array([0.4, 0.4, 0.2])
    (step,) = steps.best(nothing, probability, np.array([0, 1, 2]), tiny_diseases())
    assert (step.code, step.separates) == ("HP:0001945", ("common-cold", "influenza"))
