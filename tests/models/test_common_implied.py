"""The need for attention that a differential implies, and which margins are answerable for it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.common.implied import Implied

NEED = Implied(np.array([0.01, 0.5, 0.95]), 0.6)
margin = st.floats(-30, 30, allow_nan=False, width=32)
margins = st.tuples(margin, margin, margin).map(lambda row: np.array(row, dtype=np.float32))


def test_a_certain_disease_implies_its_own_need() -> None:
    for number, need in enumerate(NEED.attention):
        logit = float(NEED.logit(100.0 * np.eye(3)[number]))
        assert abs(1 / (1 + np.exp(-logit)) - need) < 1e-6


def test_an_open_differential_implies_the_mean_need() -> None:
    assert abs(1 / (1 + np.exp(-float(NEED.logit(np.zeros(3))))) - NEED.attention.mean()) < 1e-9


@given(margins, margins)
def test_what_the_margins_add_is_the_difference_of_the_logits(before: np.ndarray, after: np.ndarray) -> None:
    pull = NEED.pull(before, after)
    added = float(pull @ (after - before))
    assert abs(added - float(NEED.logit(after) - NEED.logit(before))) < 1e-4


@given(margins)
def test_where_nothing_changed_nothing_is_added(same: np.ndarray) -> None:
    assert np.isfinite(NEED.pull(same, same)).all()


def test_a_dangerous_disease_pulls_up_and_a_harmless_one_down() -> None:
    pull = NEED.pull(np.zeros(3, np.float32), np.array([0.5, 0.0, 0.5], np.float32))
    assert pull[0] < 0 < pull[2]


def test_what_never_or_always_needs_attention_is_still_a_probability() -> None:
    arrays = {"likelihood.attention": np.array([0.0, 1.0]), "likelihood.tempering": np.array(1.0)}
    implied = Implied.of(arrays)
    assert np.isfinite(implied.logit(np.array([[500.0, -500.0], [-500.0, 500.0]]))).all()
