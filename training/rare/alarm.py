"""Fits and calibrates the alarm: everyday patients against patients of rare diseases.

Everyday patients are simulated, those of rare diseases simulated and published; the development set's
hand-made everyday patients decide nothing here, they only measure.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.optimize import minimize

from models.rare.alarm import AlarmReader, bent
from models.rare.phenotype import Phenotype
from models.rare.scoring import Scorer
from models.rare.terms import F32, Arrays
from training.rare.cases import Case
from training.rare.simulate import Simulator

F64 = NDArray[np.float64]
KNOTS = (0.3, 0.7)
"""Quantiles at which a feature's effect may bend."""
RIDGE = 1e-4
"""Chosen by the log loss of held-out training patients (simulated and published), not on the negatives."""


@dataclass(frozen=True, eq=False)
class Published:
    """Published cases as the alarm sees them: features [N, F], weight [N], the disease of each [N]."""

    features: F32
    weight: F64
    diseases: Sequence[str]

    def without(self, left_out: Collection[str]) -> "Published":
        """Those of other diseases."""
        kept = [number for number, disease in enumerate(self.diseases) if disease not in left_out]
        return Published(self.features[kept], self.weight[kept], [self.diseases[number] for number in kept])


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


def published_rows(scorer: Scorer, cases: Sequence[Case], progress: Progress) -> Published:
    """Published cases, each with its own paper unread; a disease weighs as the square root of its cases."""
    asked = [(case.phenotype(), frozenset([case.pmid] if case.pmid else [])) for case in cases]
    diseases = [case.dx[0] for case in cases]
    count = Counter(diseases)
    weight = np.array([count[disease] ** -0.5 for disease in diseases])
    return Published(alarm_rows(scorer, asked, progress, "published cases for the alarm"), weight, diseases)


def fit_alarm(rare: F32, everyday: F32, published: Published | None = None, ridge: float = RIDGE) -> Arrays:
    """The arrays of the alarm (``alarm.*``): ridge logistic regression.

    Rare and everyday patients weigh the same; of the rare ones the published do as the simulated.
    """
    kinds = [(rare, np.ones(len(rare))), (everyday, np.ones(len(everyday)))]
    if published is not None and len(published.features):
        kinds.insert(1, (published.features, published.weight))
    features = np.concatenate([rows for rows, _ in kinds])
    label = np.r_[np.ones(len(features) - len(everyday)), np.zeros(len(everyday))]
    shares = [0.5 / (len(kinds) - 1)] * (len(kinds) - 1) + [0.5]
    weight = np.concatenate(
        [share * each / each.sum() for share, (_, each) in zip(shares, kinds, strict=True)]
    )
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
