"""The members of the ensemble that are not trees: the likelihood of the knowledge, and the neural net.

Each gives a margin (log-odds up to a constant common to all classes) for every disease, and shares it
among the facts of the chart: exactly for the likelihood, which is a sum over facts, and along the
straight line from the baseline for the net (integrated gradients, Sundararajan et al. 2017; exact in
closed form for one hidden layer of rectifiers).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.features import Features

F32 = NDArray[np.float32]
Arrays = dict[str, NDArray[np.generic]]
TEXTBOOK_LIMIT = 4.0


@dataclass(frozen=True)
class Likelihood:
    """Log likelihood ratios against the background, one column for each of D diseases.

    Shapes: `present`/`absent` [V, D], `risk`/`no_risk` [R, D], `positive`/`negative` [K, D], `mean` and
    `precision`/`offset` [A, D] of the distances from normal, `prior` [2, bands + 1, D] (last: unknown
    age), `sex` [3, D] (male, unknown, female), `pregnant` [3, D].
    """

    present: F32
    absent: F32
    risk: F32
    no_risk: F32
    positive: F32
    negative: F32
    mean: F32
    precision: F32
    offset: F32
    prior: F32
    sex: F32
    pregnant: F32

    @classmethod
    def of(cls, arrays: Arrays) -> "Likelihood":
        """The tables stored under ``likelihood.*``."""
        names = cls.__dataclass_fields__
        return cls(**{name: arrays[f"likelihood.{name}"].astype(np.float32) for name in names})

    def parts(self, features: Features, places: "Places") -> tuple[F32, list[tuple[int, F32]]]:
        """The base margin [D] of a visit of which nothing is known, and what each item adds [D]."""
        base = self.prior[int(features.emergency), -1] + self.sex[1] + self.pregnant[1]
        added: list[tuple[int, F32]] = []
        for stated in features.stated:
            row = stated.finding
            if stated.value > 0:
                part = self.present[row] if stated.value >= 1 else 0.5 * self.present[row]
            else:
                part = self.absent[row]
            added.append((stated.item, part))
        values = self._values(features, places, added)
        if values:
            index = np.array([place for place, _, _ in values])
            distance = np.array([[value] for _, value, _ in values], dtype=np.float32)
            gap = distance - self.mean[index]
            table = self.offset[index] + 0.5 * distance**2 - 0.5 * gap**2 * self.precision[index]
            table = np.clip(table, -TEXTBOOK_LIMIT, TEXTBOOK_LIMIT)
            added.extend((item, table[row]) for row, (_, _, item) in enumerate(values))
        return base, added

    def _values(
        self, features: Features, places: "Places", added: list[tuple[int, F32]]
    ) -> list[tuple[int, float, int]]:
        """Measurements (analyte, distance, item); what else has a row of its own is added at once."""
        values: list[tuple[int, float, int]] = []
        for index, value, item in zip(features.index, features.values, features.owner, strict=True):
            if index < places.risks:
                continue
            if index < places.values:
                row = index - places.risks
                added.append((item, self.risk[row] if value > 0 else self.no_risk[row]))
            elif index < places.measured:
                values.append((index - places.values, value, item))
            elif places.results <= index < places.person:
                row = index - places.results
                added.append((item, self.positive[row] if value > 0 else self.negative[row]))
            elif index == places.person + 1:
                added.append((item, self.sex[2 if value > 0 else 0] - self.sex[1]))
            elif index == places.person + 2:
                added.append((item, self.pregnant[2 if value > 0 else 0] - self.pregnant[1]))
            elif index >= places.bands:
                emergency = int(features.emergency)
                prior = self.prior[emergency]
                added.append((item, prior[index - places.bands] - prior[-1]))
        return values


@dataclass(frozen=True)
class Places:
    """Where the blocks of the feature vector begin (`fhir_adapters.features.FeatureReader`)."""

    risks: int
    values: int
    measured: int
    results: int
    person: int
    bands: int


@dataclass(frozen=True)
class Network:
    """One hidden layer of H rectifiers: `w1` [F, H], `b1` [H], `w2` [H, C], `b2` [C].

    The C outputs are the diseases, the five severity classes and immediate attention, centred per task.
    """

    w1: F32
    b1: F32
    w2: F32
    b2: F32

    @classmethod
    def of(cls, arrays: Arrays) -> "Network":
        """The weights stored under ``network.*``."""
        return cls(*(arrays[f"network.{name}"].astype(np.float32) for name in ("w1", "b1", "w2", "b2")))

    def hidden(self, index: NDArray[np.int32], values: F32) -> F32:
        """What reaches the hidden layer [H] for a sparse feature vector."""
        return np.asarray(self.b1 + values @ self.w1[index])

    def output(self, hidden: F32) -> F32:
        """The outputs [C]."""
        return np.asarray(np.maximum(hidden, 0) @ self.w2 + self.b2)

    def shares(
        self, hidden: F32, resting: F32, index: NDArray[np.int32], values: F32, columns: NDArray[np.intp]
    ) -> F32:
        """What each feature adds to some outputs [features, columns] on the way from the resting state."""
        change = hidden - resting
        gain = np.maximum(hidden, 0) - np.maximum(resting, 0)
        slope = np.divide(gain, change, out=(hidden > 0).astype(np.float32), where=np.abs(change) > 1e-9)
        return np.asarray((values[:, None] * self.w1[index]) @ (slope[:, None] * self.w2[:, columns]))
