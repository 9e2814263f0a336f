"""What a differential implies about immediate attention: the mean need of its diseases, as a logit.

Responsible for that logit and for how strongly each disease's margin pulls it, so that the facts behind
the margins can be made answerable for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
LEAST = 1e-4
"""No disease is taken to need attention never or always."""
STEPS = 6
"""Points of the straight line between two differentials at which the pull is taken (midpoints)."""
FAINT = 1e-6
"""Share of a margin's change that counts as movement where the slope is 0 at every point."""
_WAY = ((np.arange(STEPS, dtype=np.float32) + 0.5) / STEPS)[:, None]


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

    @cached_property
    def _needing(self) -> F32:
        """The attention [D], as narrow as margins are."""
        return self.attention.astype(np.float32)

    @cached_property
    def _columns(self) -> F32:
        """Ones beside the attention [D, 2]."""
        return np.stack([np.ones(len(self.attention), dtype=np.float32), self._needing], axis=1)

    def logit(self, margins: NDArray[np.floating]) -> F64:
        """The logit of the mean need [...] of diseases with some margins [..., D]."""
        need = _softmax(self.tempering * margins.astype(np.float64)) @ self.attention
        return np.asarray(np.log(need) - np.log1p(-need))

    def pull(self, before: F32, after: F32, wanted: float | None = None) -> F64:
        """How much one unit of each disease's margin [D] moves the logit on the way between two margins.

        The mean gradient along the straight line (integrated gradients, Sundararajan et al. 2017), scaled so
        that what the whole way adds is exactly the difference of the logits (`wanted`, where it is known).
        """
        tempering = np.float32(self.tempering)
        difference = after - before
        change = tempering * difference
        power = _WAY * change
        power += tempering * before
        power -= np.maximum.reduce(power, axis=1, keepdims=True)
        np.exp(power, out=power)
        # The mean over the points of share * (attention - need) / (need * (1 - need)), point by point
        # a number for the share and one for its product with the attention.
        ups: list[float] = []
        downs: list[float] = []
        for every, needing in (power @ self._columns).tolist():
            need = needing / every
            slope = 1 / (STEPS * every * need * (1 - need))
            ups.append(slope)
            downs.append(slope * need)
        moved = np.array(ups, dtype=np.float32) @ power
        moved *= self._needing
        moved -= np.array(downs, dtype=np.float32) @ power
        moved = (moved * change).astype(np.float64)
        # The slope is that of a curve taken at some points; what is missing goes to the diseases in
        # proportion to what they moved (where the curve is a step between the points: to their change).
        size = np.abs(change)
        size *= np.float32(FAINT)
        size = np.abs(moved) + size
        total = float(np.add.reduce(size))
        if wanted is None:
            wanted = float(self.logit(after)) - float(self.logit(before))
        missing = (wanted - float(np.add.reduce(moved))) / total if total > 0 else 0.0
        moved += missing * size
        # What does not change moves nothing.
        return np.asarray(np.divide(moved, difference, out=np.zeros(len(moved)), where=change != 0))


def _softmax(margins: NDArray[Any]) -> NDArray[Any]:
    """Probabilities along the last axis."""
    power = np.exp(margins - np.maximum.reduce(margins, axis=-1, keepdims=True))
    return np.asarray(power / np.add.reduce(power, axis=-1, keepdims=True))
