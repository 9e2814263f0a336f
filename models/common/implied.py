"""What a differential implies about immediate attention: the mean need of its diseases, as a logit.

Responsible for that logit and for how strongly each disease's margin pulls it, so that the facts behind
the margins can be made answerable for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
LEAST = 1e-4
"""No disease is taken to need attention never or always."""
STEPS = 16
"""Points of the straight line between two differentials at which the pull is taken (midpoints)."""


@dataclass(frozen=True)
class Implied:
    """`attention` [D] is the chance of needing attention within minutes by disease, `tempering` the exponent
    of the differential's margins."""

    attention: F64
    tempering: float

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "Implied":
        """From ``likelihood.attention`` and ``likelihood.tempering``."""
        attention = arrays["likelihood.attention"].astype(np.float64)
        return cls(np.clip(attention, LEAST, 1 - LEAST), float(arrays["likelihood.tempering"]))

    def logit(self, margins: NDArray[np.floating]) -> F64:
        """The logit of the mean need [...] of diseases with some margins [..., D]."""
        need = self._shares(margins) @ self.attention
        return np.asarray(np.log(need) - np.log1p(-need))

    def pull(self, before: NDArray[np.floating], after: NDArray[np.floating]) -> F64:
        """How much one unit of each disease's margin [D] moves the logit on the way between two margins.

        The mean gradient along the straight line (integrated gradients, Sundararajan et al. 2017), scaled so
        that what the whole way adds is exactly the difference of the logits.
        """
        change = after.astype(np.float64) - before
        way = before + (np.arange(STEPS)[:, None] + 0.5) / STEPS * change
        share = self._shares(way)
        need = (share @ self.attention)[:, None]
        pull = (share * (self.attention - need) / (need * (1 - need))).mean(axis=0) * self.tempering
        wanted = float(self.logit(after) - self.logit(before))
        # The slope is that of a curve taken at some points; what is missing goes to the diseases in
        # proportion to what they moved.
        moved = np.abs(pull * change)
        total = float(moved.sum())
        if total > 0:
            missing = (wanted - float(pull @ change)) / total
            pull = pull + missing * np.sign(pull * change) * pull
        return np.asarray(pull)

    def _shares(self, margins: NDArray[np.floating]) -> F64:
        """The probabilities [..., D] of the tempered margins."""
        tempered = self.tempering * margins.astype(np.float64)
        power = np.exp(tempered - tempered.max(axis=-1, keepdims=True))
        return np.asarray(power / power.sum(axis=-1, keepdims=True))
