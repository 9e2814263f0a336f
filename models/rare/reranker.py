"""The second stage: a score for each candidate, and probabilities with a share for "none of these".

The score is a weighted sum of the features plus boosted trees, both fitted to the softmax over the
candidates of a patient.  Trees are walked for all candidates at once; their exact Shapley values against
the baseline "nothing known" (all features 0) come from `models.common.shapley`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.common.forest import Flags, Trees
from models.common.shapley import Baseline, reach
from models.rare.terms import F32, Arrays


@dataclass(frozen=True, eq=False)
class Reranker:
    """`weight` [F], `trees` with `value` [L] at their leaves; `temperature` and `none` calibrate.

    The probability of candidate c is ``exp(s_c / temperature)`` over the sum of all and
    ``exp(none + none_slope * best)``, where `best` is the greatest score.
    """

    weight: F32
    trees: Trees
    value: F32
    rest: Baseline
    temperature: float
    none: float
    none_slope: float

    @classmethod
    def of(cls, arrays: Arrays) -> "Reranker":
        """The re-ranker stored under ``reranker.*``."""
        trees, (place,) = Trees.of(arrays, ("reranker",))
        value = np.zeros(trees.inner + len(trees.paths), dtype=np.float32)
        value[place] = arrays["reranker.value"]
        return cls(
            arrays["reranker.weight"].astype(np.float32),
            trees,
            value[trees.inner :],
            Baseline.of(trees, np.zeros(trees.inner + 1, dtype=np.bool_)),
            float(arrays["reranker.temperature"]),
            float(arrays["reranker.none"]),
            float(arrays["reranker.none_slope"]),
        )

    def score(self, features: F32) -> F32:
        """Scores [C] of candidates' features [C, F]."""
        if not len(features):
            return np.zeros(0, dtype=np.float32)
        reached = self._reached(features).astype(np.float32)
        return np.asarray(features @ self.weight + self.value @ reached, dtype=np.float32)

    def _reached(self, features: F32) -> Flags:
        """Which leaves each candidate ends in [L, C]: those to which every turn on the way is taken.

        Looking at all ways at once is quicker than walking them: rows are copied and compared as they lie.
        """
        trees = self.trees
        rows = np.concatenate([features.T, -features.T])
        rows[rows == 0] = -np.inf
        turned = np.zeros((trees.inner + 1, len(features)), dtype=np.bool_)
        np.greater(rows.take(trees.asks, axis=0), trees.threshold[:, None], out=turned[:-1])
        taken = turned.take(trees.paths.T, axis=0)
        np.equal(taken, trees.turns.T[:, :, None], out=taken)
        return np.asarray(np.logical_and.reduce(taken, axis=0))

    def probabilities(self, scores: F32) -> tuple[NDArray[np.float64], float]:
        """Probability of each candidate [C], and that it is none of them."""
        if not len(scores):
            return np.zeros(0), 1.0
        logits = scores.astype(np.float64) / self.temperature
        none = self.none + self.none_slope * float(logits.max())
        top = max(float(logits.max()), none)
        each = np.exp(logits - top)
        rest = np.exp(none - top)
        total = each.sum() + rest
        return each / total, float(rest / total)

    def explain(self, features: F32) -> tuple[NDArray[np.float64], float]:
        """Contributions [F] of one candidate's features [F], and the baseline; together its score."""
        trees = self.trees
        index = np.flatnonzero(features)
        owner = np.full(len(features), -1, dtype=np.intp)
        owner[index] = np.arange(len(index))
        turned = trees.turned(trees.signed(index, features[index]))
        found = reach(trees, [(0, len(trees.roots))], turned, self.rest, owner, len(index))
        share = found.shapley(self.value[found.leaf].astype(np.float64)[:, None])[:, 0]
        amounts = features.astype(np.float64) * self.weight
        amounts[index] += share
        return amounts, float(self.value[self.rest.leaf].astype(np.float64).sum())
