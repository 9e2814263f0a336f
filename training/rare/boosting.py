"""Fits the second stage: linear weights, then trees, both to the softmax over a patient's candidates.

Responsible for groups of candidates with one right answer (or none), and for XGBoost's and the linear
part's arrays.  Where the candidates come from is `training.rare.groups`' business.
"""

from dataclasses import dataclass

import numpy as np
import xgboost
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.rare.features import FEATURES
from models.rare.terms import Arrays
from training.ensemble.export import tree_arrays

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Groups:
    """N rows of G patients: patient g has the rows ``starts[g]:starts[g + 1]``.

    `right` [G] the row of the right answer, -1 for none of them; `weight` [G]; `label` [G] the disease by
    which folds are cut.
    """

    features: F32
    starts: NDArray[np.int64]
    right: NDArray[np.int64]
    weight: F64
    label: NDArray[np.int64]

    def chosen(self, groups: NDArray[np.integer]) -> "Groups":
        """Some of the patients."""
        sizes = np.diff(self.starts)[groups]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.concatenate([np.arange(self.starts[g], self.starts[g + 1]) for g in groups])
        right = np.where(self.right[groups] < 0, -1, self.right[groups] - self.starts[groups] + starts[:-1])
        return Groups(self.features[rows], starts, right, self.weight[groups], self.label[groups])


def joined(parts: list[Groups]) -> Groups:
    """Several sets of patients as one."""
    shifts = np.cumsum([0] + [len(part.features) for part in parts[:-1]])
    starts = [part.starts[:-1] + shift for part, shift in zip(parts, shifts, strict=True)]
    return Groups(
        np.concatenate([part.features for part in parts]),
        np.concatenate([*starts, [sum(len(part.features) for part in parts)]]),
        np.concatenate([np.where(p.right < 0, -1, p.right + s) for p, s in zip(parts, shifts, strict=True)]),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.label for part in parts]),
    )


LINEAR_ONLY = ("profile-size", "profile-patients", "counted-share", "expected", "onset", "age-before-onset",
               "sex")  # fmt: skip
"""Features the trees do not see: they tell diseases apart rather than how well one fits, and trees grown
on the few hundred diseases of published cases learn these diseases by heart (measured: docs/rare.md)."""
RISING = (
    "likelihood", "likelihood-mean", "likelihood-worst", "likelihood-best", "likelihood-three", "resnik",
    "resnik-share", "exact-share", "exact-information", "simgic", "reverse-share", "disease-side-share",
    "pattern", "likelihood-lead", "resnik-lead", "exact-lead", "simgic-lead", "pattern-lead",
    "first-stage-lead",
)  # fmt: skip
FALLING = ("unmatched", "unmatched-information", "denied-worst", "denied-often", "frequent-missing-share")
"""Directions that clinical sense dictates and that trees must respect."""


@dataclass(frozen=True)
class BoostConfig:
    """Settings of the second stage."""

    rounds: int = 60
    depth: int = 4
    rate: float = 0.06
    ridge: float = 2e-3
    subsample: float = 0.7
    columns: float = 0.6
    leaf: float = 10.0
    seed: int = 5
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Fitted:
    """Linear `weight` [F] on raw features, and the trees on top."""

    weight: F64
    booster: xgboost.Booster

    def score(self, features: F32) -> F64:
        """Scores of rows."""
        margin = features @ self.weight
        data = xgboost.DMatrix(for_trees(features), base_margin=margin, missing=0.0)
        return np.asarray(self.booster.predict(data, output_margin=True), dtype=np.float64)

    def arrays(self) -> Arrays:
        """What `models.rare.reranker.Reranker` reads, without its calibration."""
        return {"reranker.weight": self.weight.astype(np.float32)} | tree_arrays(
            self.booster, "reranker", len(self.weight)
        )


def softmax(scores: F64, groups: Groups) -> tuple[F64, F64]:
    """Probabilities of rows, and of none [G]; "none" has the score 0."""
    starts = groups.starts[:-1]
    top = np.maximum(np.maximum.reduceat(scores, starts), 0.0)
    sizes = np.diff(groups.starts)
    each = np.exp(scores - np.repeat(top, sizes))
    rest = np.exp(-top)
    total = np.add.reduceat(each, starts) + rest
    return each / np.repeat(total, sizes), rest / total


def for_trees(features: F32) -> F32:
    """The features without those that only the linear part sees (0: unknown, never asked)."""
    seen = features.copy()
    seen[:, [FEATURES.index(name) for name in LINEAR_ONLY]] = 0
    return seen


def fit(groups: Groups, config: BoostConfig) -> Fitted:
    """Fit both parts; the same groups and settings give the same result."""
    weight = fit_linear(groups, config.ridge)
    data = xgboost.DMatrix(for_trees(groups.features), base_margin=groups.features @ weight, missing=0.0)
    right = np.zeros(len(groups.features))
    right[groups.right[groups.right >= 0]] = 1.0
    sizes = np.diff(groups.starts)
    importance = np.repeat(groups.weight / groups.weight.mean(), sizes)

    def objective(margin: F32, _: xgboost.DMatrix) -> tuple[F64, F64]:
        chance, _none = softmax(margin.astype(np.float64), groups)
        return importance * (chance - right), importance * np.maximum(chance * (1 - chance), 1e-4)

    parameters = {
        "max_depth": config.depth, "eta": config.rate, "subsample": config.subsample,
        "colsample_bytree": config.columns, "min_child_weight": config.leaf, "lambda": 2.0,
        "tree_method": "hist", "max_bin": 64, "nthread": config.threads, "seed": config.seed,
        "base_score": 0.0,
        "monotone_constraints": tuple((name in RISING) - (name in FALLING) for name in FEATURES),
    }  # fmt: skip
    booster = xgboost.train(parameters, data, config.rounds, obj=objective)
    return Fitted(weight, booster)


def fit_linear(groups: Groups, ridge: float) -> F64:
    """The weights of the features that make the right answers most likely (conditional logit)."""
    scale = groups.features.std(axis=0).astype(np.float64) + 1e-6
    scaled = (groups.features / scale).astype(np.float32)
    right = groups.right[groups.right >= 0]
    share = groups.weight / groups.weight.sum()
    of_rows = np.repeat(share, np.diff(groups.starts))
    at_right = share[groups.right >= 0]
    none_share = share[groups.right < 0]

    def loss(weight: F64) -> tuple[float, F64]:
        scores = (scaled @ weight.astype(np.float32)).astype(np.float64)
        chance, none = softmax(scores, groups)
        value = -(at_right @ np.log(chance[right] + 1e-12)) - none_share @ np.log(
            none[groups.right < 0] + 1e-12
        )
        error = of_rows * chance
        error[right] -= at_right
        slope = (error.astype(np.float32) @ scaled).astype(np.float64)
        return float(value + ridge * weight @ weight), slope + 2 * ridge * weight

    best = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return np.asarray(best.x / scale)
