"""The second stage: a score for each candidate, and probabilities with a share for "none of these".

The score is a weighted sum of the features plus boosted trees, both fitted to the softmax over the
candidates of a patient.  Trees are walked for all candidates at once; their exact Shapley values against
the baseline "nothing known" (all features 0) come from `models.common.forest`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.common.forest import Trees, reach
from models.rare.terms import F32, I32, Arrays


@dataclass(frozen=True, eq=False)
class Reranker:
    """`weight` [F], `trees` with `value` [N] at their leaves; `temperature` and `none` calibrate.

    The probability of candidate c is ``exp(s_c / temperature)`` over the sum of all and
    ``exp(none + none_slope * best)``, where `best` is the greatest score.
    """

    weight: F32
    trees: Trees
    value: F32
    asked: I32
    temperature: float
    none: float
    none_slope: float

    @classmethod
    def of(cls, arrays: Arrays) -> "Reranker":
        """The re-ranker stored under ``reranker.*``."""
        trees = Trees.of(arrays, "reranker")
        asked = np.full(len(trees.left), len(trees.starts) - 1, dtype=np.int32)
        asked[: trees.starts[-1]] = np.repeat(
            np.arange(len(trees.starts) - 1, dtype=np.int32), np.diff(trees.starts)
        )
        return cls(
            arrays["reranker.weight"].astype(np.float32),
            trees,
            arrays["reranker.value"].astype(np.float32),
            asked,
            float(arrays["reranker.temperature"]),
            float(arrays["reranker.none"]),
            float(arrays["reranker.none_slope"]),
        )

    def score(self, features: F32) -> F32:
        """Scores [C] of candidates' features [C, F]."""
        leaf = self._leaves(features)
        return np.asarray(features @ self.weight + self.value[leaf].sum(axis=1), dtype=np.float32)

    def _leaves(self, features: F32) -> NDArray[np.integer]:
        """The leaf of each candidate in each tree [C, T]."""
        trees = self.trees
        # One more column for leaves: they ask nothing, whatever the answer they stay.
        padded = np.concatenate([features, np.zeros((len(features), 1), dtype=np.float32)], axis=1)
        flat, width = padded.ravel(), padded.shape[1]
        base = (np.arange(len(features)) * width)[:, None]
        node = np.broadcast_to(trees.roots, (len(features), len(trees.roots)))
        for _ in range(trees.depth):
            value = flat[base + self.asked[node]]
            turned = np.where(value <= trees.threshold[node], trees.left[node], trees.right[node])
            node = np.where(value == 0, trees.still[node], turned)
        return node

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
        index = np.flatnonzero(features).astype(np.int32)
        steps = trees.steps(index, features[index])
        owner = np.full(len(features) + 1, -1, dtype=np.int32)
        owner[index] = np.arange(len(index), dtype=np.int32)
        found = reach(trees.roots, steps, trees.still, self.asked, owner, max(1, len(index)))
        share = found.shapley(self.value[found.leaf].astype(np.float64)[:, None])[:, 0]
        amounts = features.astype(np.float64) * self.weight
        amounts[index] += share[: len(index)]
        baseline = float(self.value[trees.leaves(trees.still)].astype(np.float64).sum())
        return amounts, baseline
