"""Small made-up predictions whose figures can be counted by hand, and larger ones from a seed."""

import numpy as np

from models.assessment import SEVERITIES
from training.evaluation.predictions import HeldOut, Predictions, Truth


def truth_of_four() -> Truth:
    """Four patients, three diseases, of which the second is dangerous."""
    return Truth(
        disease=np.array([0, 1, 1, 2], dtype=np.int32),
        severity=np.array([0, 3, 3, 2], dtype=np.int8),
        immediate=np.array([False, True, True, False]),
        setting=np.array([0, 1, 1, 0], dtype=np.int8),
        age_band=np.array([5, 5, 6, 6], dtype=np.int8),
        sex=np.array([1, 1, -1, -1], dtype=np.int8),
        diseases=("well", "sepsis", "cold"),
        critical=np.array([False, True, False]),
    )


def predictions_of_four(name: str = "ensemble") -> Predictions:
    """Right, right, wrong (third), right; the second patient in need is not called."""
    return Predictions(
        name=name,
        disease=np.array(
            [[0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]], dtype=np.float32
        ),
        severity=np.array(
            [
                [0.7, 0.1, 0.1, 0.1, 0.0],
                [0.0, 0.1, 0.2, 0.7, 0.0],
                [0.6, 0.1, 0.1, 0.2, 0.0],
                [0.1, 0.1, 0.7, 0.1, 0.0],
            ],
            dtype=np.float32,
        ),
        severity_decision=np.array([0, 3, 0, 2], dtype=np.int8),
        immediate=np.array([0.1, 0.9, 0.15, 0.2], dtype=np.float32),
        immediate_decision=np.array([False, True, False, False]),
        in_set=np.array([[1, 0, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=bool),
        coverage=0.9,
    )


def seeded(count: int = 600, diseases: int = 12, seed: int = 5) -> HeldOut:
    """A held-out set as training gives one: an ensemble, a better reference and a worse ablation."""
    rng = np.random.default_rng(seed)
    disease = rng.integers(0, diseases, count).astype(np.int32)
    severity = (disease % len(SEVERITIES)).astype(np.int8)
    immediate = (disease < 3) & (rng.random(count) < 0.8)
    truth = Truth(
        disease=disease,
        severity=severity,
        immediate=immediate,
        setting=rng.integers(0, 2, count).astype(np.int8),
        age_band=rng.integers(0, 9, count).astype(np.int8),
        sex=rng.choice(np.array([-1, 1], dtype=np.int8), count),
        diseases=tuple(f"disease-{number}" for number in range(diseases)),
        critical=np.arange(diseases) < 3,
    )

    def model(name: str, knows: float) -> Predictions:
        margins = rng.normal(0, 1, (count, diseases))
        margins[np.arange(count), disease] += knows
        chance = np.exp(margins)
        chance /= chance.sum(axis=1, keepdims=True)
        classes = np.zeros((count, len(SEVERITIES)))
        for number in range(diseases):
            classes[:, number % len(SEVERITIES)] += chance[:, number]
        urgent = chance[:, :3].sum(axis=1) * 0.8
        return Predictions(
            name=name,
            disease=chance.astype(np.float32),
            severity=classes.astype(np.float32),
            severity_decision=classes.argmax(axis=1).astype(np.int8),
            immediate=urgent.astype(np.float32),
            immediate_decision=urgent > 0.2,
            in_set=chance > 0.04,
        )

    return HeldOut(
        truth,
        model("the ensemble", 3.0),
        model("reference", 3.5),
        (model("without trees", 2.0),),
        (("seed", "5"),),
    )
