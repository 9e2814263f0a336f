"""Fits and calibrates the alarm: everyday patients against patients of rare diseases, all simulated.

Published cases and the hand-made negatives decide nothing here; they only measure.
"""

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.optimize import minimize

from models.rare.alarm import AlarmReader, bent
from models.rare.phenotype import Phenotype
from models.rare.scoring import Scorer
from models.rare.terms import F32, Arrays
from training.rare.simulate import Simulator

KNOTS = (0.3, 0.7)
"""Quantiles at which a feature's effect may bend."""
RIDGE = 3e-3


def alarm_rows(
    scorer: Scorer, phenotypes: list[tuple[Phenotype, frozenset[str]]], progress: Progress, name: str
) -> F32:
    """Features [N, F] of patients, each with the references to leave unread."""
    reader = AlarmReader(scorer.knowledge.terms)
    task = progress.add_task(name, total=len(phenotypes))
    rows = []
    for phenotype, unread in phenotypes:
        rows.append(reader.read(scorer.shortlist(phenotype, scorer.unread(unread))))
        progress.advance(task)
    return np.stack(rows)


def rare_patients(
    scorer: Scorer, count: int, rng: np.random.Generator
) -> list[tuple[Phenotype, frozenset[str]]]:
    """Simulated patients of rare diseases with the references to leave unread."""
    drawn = Simulator(scorer.knowledge).patients(count, rng)
    return [(patient.phenotype, frozenset(patient.unread)) for patient in drawn]


def fit_alarm(rare: F32, everyday: F32, ridge: float = RIDGE) -> Arrays:
    """The arrays of the alarm (``alarm.*``): ridge logistic regression, both kinds weighing the same."""
    features = np.concatenate([rare, everyday])
    label = np.r_[np.ones(len(rare)), np.zeros(len(everyday))]
    weight = np.r_[np.full(len(rare), 0.5 / len(rare)), np.full(len(everyday), 0.5 / len(everyday))]
    scale = np.maximum(features.std(axis=0), 1e-3).astype(np.float32)
    knots = np.quantile(features, KNOTS, axis=0).T.astype(np.float32)
    basis = bent(features, knots, scale).reshape(len(features), -1).astype(np.float64)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = basis @ parameters[1:] + parameters[0]
        value = weight @ (np.logaddexp(0, logit) - label * logit)
        error = weight * (1 / (1 + np.exp(-logit)) - label)
        slope = np.r_[error.sum(), error @ basis + 2 * ridge * parameters[1:]]
        return float(value + ridge * parameters[1:] @ parameters[1:]), slope

    best = minimize(loss, np.zeros(basis.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 400})
    return {
        "alarm.knots": knots,
        "alarm.scale": scale,
        "alarm.weight": best.x[1:].reshape(len(scale), -1).astype(np.float32),
        "alarm.bias": np.array(best.x[0]),
    }
