"""Whether a rare disease is to be suspected: a decision of its own, not the best candidate's probability.

Everyday findings look specific in annotations of rare diseases, so what counts is how rare findings are
among people who come for something common, how well they hang together in one disease, and how many organ
systems they concern.  Uses neither the age nor anything that is denied: people who are asked more deny
more, and that says nothing of their disease.  A phenotype can be suspicious and resemble nothing known.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rare.matching import UNIT
from models.rare.scoring import Shortlist
from models.rare.terms import F32, Arrays, Terms

ALARM_FEATURES = (
    "findings", "rare-against-everyday", "rare-against-everyday-mean", "rarest", "second-rarest",
    "third-rarest", "most-everyday", "unheard-of", "congenital-systems", "organ-systems", "information",
    "information-mean", "best-likelihood", "best-likelihood-mean", "best-share", "best-exact",
    "best-pattern", "pattern-gap", "coherent-rarity",
)  # fmt: skip
FLOOR = 2e-4
"""Least frequency among everyday patients: what was never recorded of some 10,000 may still happen."""
UNHEARD = 5e-4


@dataclass(frozen=True, eq=False)
class Alarm:
    """A logistic model over `ALARM_FEATURES` cut at `knots`: each feature is bent at inner points [F, K],
    so that its effect need not be a straight line.  `weight` [F, K + 1], `bias`."""

    knots: F32
    scale: F32
    weight: F32
    bias: float

    @classmethod
    def of(cls, arrays: Arrays) -> "Alarm":
        """The model stored under ``alarm.*``."""
        return cls(
            arrays["alarm.knots"].astype(np.float32),
            arrays["alarm.scale"].astype(np.float32),
            arrays["alarm.weight"].astype(np.float32),
            float(arrays["alarm.bias"]),
        )

    def contributions(self, features: F32) -> NDArray[np.float64]:
        """What each feature adds to the log odds [F]; with `bias` they are the whole."""
        basis = bent(features[None, :], self.knots, self.scale)[0]
        return np.asarray((basis * self.weight).sum(axis=1, dtype=np.float64))

    def probability(self, contributions: NDArray[np.float64]) -> float:
        """The calibrated probability of a rare disease, of what `contributions` gave."""
        logit = self.bias + float(contributions.sum())
        return float(1 / (1 + np.exp(-np.clip(logit, -30, 30))))


def bent(features: F32, knots: F32, scale: F32) -> F32:
    """Each feature [N, F] as itself and what exceeds each knot [N, F, K + 1], scaled."""
    parts = [features[:, :, None], np.maximum(features[:, :, None] - knots[None, :, :], 0)]
    return np.asarray(np.concatenate(parts, axis=2) / scale[None, :, None], dtype=np.float32)


class AlarmReader:
    """Works out the features of the alarm."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._everyday = _everyday(terms)
        self._ratio = np.log(np.maximum(terms.rate, 1e-5) / self._everyday).astype(np.float32)

    def read(self, shortlist: Shortlist) -> F32:
        """The features [F] of one patient; zeros when nothing is present."""
        present = shortlist.query.present
        if not len(present):
            return np.zeros(len(ALARM_FEATURES), dtype=np.float32)
        terms, match = self._terms, shortlist.match
        rarity = -np.log(self._everyday[present])
        order = np.sort(rarity)[::-1]
        ratio, ic = self._ratio[present], terms.ic[present]
        count, total = len(present), float(ic.sum())
        gain, shared = match.gain * UNIT, match.shared * UNIT
        likelihood = gain.sum(axis=0)
        pattern = np.sort(shortlist.pattern)[::-1]
        systems = int(np.bitwise_or.reduce(terms.system[present]))
        # What the best candidate explains, counted by how rare it is among everyday patients.
        together = (np.minimum(shared / np.maximum(ic[:, None], 0.1), 1) * rarity[:, None]).sum(axis=0)
        return np.array(
            [
                np.log(count),
                np.clip(ratio, -3, 4).sum(),
                np.clip(ratio, -3, 4).mean(),
                order[0],
                order[1] if count > 1 else 0.0,
                order[2] if count > 2 else 0.0,
                order[-1],
                (self._everyday[present] <= UNHEARD).sum(),
                (terms.system[present] & ~1 != 0).sum() ** 0.5,
                systems.bit_count(),
                total,
                total / count,
                likelihood.max(),
                likelihood.max() / count,
                (shared.sum(axis=0) / max(total, 0.1)).max(),
                match.exact.sum(axis=0).max(),
                pattern[0],
                pattern[0] - pattern[min(10, len(pattern) - 1)],
                together.max(),
            ],
            dtype=np.float32,
        )


def _everyday(terms: Terms) -> F32:
    """P(finding) among everyday patients [T]: as recorded; where never recorded, a share of what the
    nearest ancestor that is has, as many as the term's diseases among the ancestor's."""
    above, size = terms.above, np.diff(terms.starts)
    below = np.repeat(np.arange(len(terms)), size)
    share = terms.visitor[above] * np.exp(terms.ic[above] - terms.ic[below])
    # Of a term that was never recorded this is 0, so it falls away among its own ancestors.
    share[terms.visitor[above] == 0] = np.inf
    least = np.minimum.reduceat(share, terms.starts[:-1])
    inherited = np.where(np.isinf(least), 0, least.astype(np.float64) * 0.25)
    found = np.where(terms.visitor > 0, terms.visitor, inherited)
    return np.maximum(found, FLOOR).astype(np.float32)
