"""The learned pattern: patients and diseases as points of one space, near when they belong together.

A set encoder over HPO terms: every term has a vector (made of its ancestors', at export) and a weight;
a patient is the weighted sum of findings put through one hidden layer, a disease the same of its profile
weighted by frequency.  Trained in `training.rare.embedding` as a prototypical network (Snell et al. 2017,
NeurIPS); a disease that was never trained on gets its place from its profile alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rare.panel import Columns
from models.rare.segment import Segment
from models.rare.terms import F32, I32, Arrays


@dataclass(frozen=True, eq=False)
class Encoder:
    """`vectors` [T, K] of terms, what they weigh in patients and in diseases [T], and the hidden layers of
    both."""

    vectors: NDArray[np.float16]
    patient: F32
    disease: F32
    patient_hidden: tuple[F32, F32]
    disease_hidden: tuple[F32, F32]

    @classmethod
    def of(cls, arrays: Arrays) -> "Encoder":
        """The encoder stored under ``encoder.*``."""

        def f32(field: str) -> F32:
            return arrays[f"encoder.{field}"].astype(np.float32)

        return cls(
            arrays["encoder.vectors"].astype(np.float16),
            f32("patient_weight"),
            f32("disease_weight"),
            (f32("patient_in"), f32("patient_out")),
            (f32("disease_in"), f32("disease_out")),
        )

    def patient_point(self, present: I32) -> F32:
        """Where a patient with some findings lies [K], of length 1."""
        summed = self.patient[present] @ self.vectors[present].astype(np.float32)
        return np.asarray(_through(summed[None, :], self.patient_hidden)[0])

    def points(self, segment: Segment) -> F32:
        """Where the diseases of a segment lie [D, K]."""
        if not segment.size:
            return np.zeros((0, self.vectors.shape[1]), dtype=np.float32)
        sums = np.zeros((segment.size, self.vectors.shape[1]), dtype=np.float32)
        # In runs, so that the vectors of all annotations are never in memory together.
        for first in range(0, segment.size, 512):
            last = min(first + 512, segment.size)
            start, end = segment.starts[first], segment.starts[last]
            if start == end:
                continue
            term = segment.terms[start:end]
            each = self.vectors[term] * (self.disease[term] * segment.chance[start:end])[:, None]
            owner = np.repeat(np.arange(last - first), np.diff(segment.starts[first : last + 1]))
            found, at = np.unique(owner, return_index=True)
            sums[first + found] = np.add.reduceat(each, at, axis=0)
        return _through(sums, self.disease_hidden)


def pattern(encoder: Encoder | None, base: F32, columns: Columns, present: I32) -> F32:
    """Cosine of the patient with each column; zeros without an encoder.  `base` [K, D]: the points of the
    knowledge's diseases, the way round that is read fastest."""
    if encoder is None or not len(present):
        return np.zeros(len(columns.owner), dtype=np.float32)
    point = encoder.patient_point(present)
    found = point @ base
    if len(columns.matchers) > 1:
        found = np.concatenate([found, encoder.points(columns.matchers[1].segment) @ point])
    return found.astype(np.float32)


def _through(x: F32, hidden: tuple[F32, F32]) -> F32:
    x = x / np.maximum(np.sqrt((x * x).sum(axis=1, keepdims=True)), np.float32(1e-6))
    x = x + np.maximum(x @ hidden[0], 0) @ hidden[1]
    return np.asarray(x / np.maximum(np.sqrt((x * x).sum(axis=1, keepdims=True)), np.float32(1e-6)))
