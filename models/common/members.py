"""The members of the ensemble that are not trees: the likelihood of the knowledge, and the neural net.

Each gives a margin (log-odds up to a constant common to all classes) for every disease, and shares it
among the facts of the chart: exactly for the likelihood, which is a sum over facts, and along the
straight line from the baseline for the net (integrated gradients, Sundararajan et al. 2017; exact in
closed form for one hidden layer of rectifiers).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from fhir_adapters.features import Features

F32 = NDArray[np.float32]
Arrays = dict[str, NDArray[np.generic]]
TEXTBOOK_LIMIT = 4.0
"""Log likelihood ratio beyond which one measurement proves no more."""
NAMED = 12.0
"""Log likelihood ratio of a diagnosis given as the reason for the visit (blood pressure follow-up, known
gout): it is nearly always the one the visit ends with.  Simulated patients come with complaints only, so it
is not learned; grade C."""
SETTING_PLACE, COMPLAINT_PLACE = 3, 5
"""Places of the features "emergency or not" and "names a complaint" among those of the person."""


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """What a chart says, as rows of the likelihood's tables: the item behind each, and what it adds.

    `said` [n, D] are rows of `Likelihood.table`, to be taken `scales` times; `items` [n] says what each is
    from.  `measured` [m, D] is what the measurements of `measured_items` add.  `base` [D] is of a visitor of
    whom nothing is known but whether it is an emergency.
    """

    emergency: bool
    base: F32
    said: F32
    scales: F32
    items: NDArray[np.intp]
    measured: F32
    measured_items: NDArray[np.intp]


@dataclass(frozen=True)
class Likelihood:
    """Log likelihood ratios against the average visitor, one column for each of D diseases.

    `table` stacks, from the starts `at`: findings present and denied [V, D] each, risks said and denied
    [R, D], results positive and negative [K, D], sex [3, D] (male, unknown, female), pregnancy [3, D],
    naming a complaint [1, D], and the prior by setting and age band [2 (bands + 1), D] (last of each:
    unknown age); after these a row for each ICD-10 category in `named`.  `distances` [A, 4 D] are mean,
    precision, offset and least of measurements' distances from normal (`against_average`), `usual` [D] the
    share of each disease among visitors.  `bases` [2, D] is what holds of a visitor of whom nothing is known,
    in an emergency last.
    """

    table: F32
    at: dict[str, int]
    bands: int
    distances: F32
    usual: F32
    bases: F32
    named: dict[str, int]

    @classmethod
    def of(cls, arrays: Arrays, categories: Sequence[tuple[str, ...]] = ()) -> "Likelihood":
        """The tables stored under ``likelihood.*``; `categories` are those each disease is coded under."""
        parts = {name: arrays[f"likelihood.{name}"].astype(np.float32) for name in _TABLES}
        prior = arrays["likelihood.prior"].astype(np.float32)
        parts["prior"] = prior.reshape(-1, prior.shape[-1])
        at, rows = {}, 0
        for name, part in parts.items():
            at[name] = rows
            rows += len(part)
        mean, precision, offset, least, usual = (
            arrays[f"likelihood.{name}"].astype(np.float32, order="C")
            for name in ("mean", "precision", "offset", "least", "usual")
        )
        every = sorted({category for row in categories for category in row})
        named = {category: rows + number for number, category in enumerate(every)}
        called = np.zeros((len(every), prior.shape[-1]), dtype=np.float32)
        for column, row in enumerate(categories):
            for category in row:
                called[named[category] - rows, column] = NAMED
        table = np.concatenate([*parts.values(), called])
        bands = prior.shape[1]
        unknown = table[at["sex"] + 1] + table[at["pregnant"] + 1]
        bases = np.stack(
            [table[at["prior"] + (setting + 1) * bands - 1] + unknown for setting in range(2)], axis=0
        )
        distances = np.concatenate([mean, precision, offset, least], axis=1)
        return cls(table, at, bands, distances, usual, bases, named)

    def read(self, features: Features, places: "Places") -> Evidence:
        """The rows of the tables that a chart speaks of."""
        at = self.at
        rows: list[int] = []
        scales: list[float] = []
        items: list[int] = []
        for stated in features.stated:
            present = stated.value > 0
            rows.append((at["present"] if present else at["absent"]) + stated.finding)
            scales.append(1.0 if not present or stated.value >= 1 else 0.5)
            items.append(stated.item)
        for code, item in features.named:
            row = self.named.get(code[:3])
            if row is not None:
                rows.append(row)
                scales.append(1.0)
                items.append(item)
        prior = at["prior"] + int(features.emergency) * self.bands
        unknown_age, unknown_sex, unknown_pregnancy = (
            prior + self.bands - 1,
            at["sex"] + 1,
            at["pregnant"] + 1,
        )

        def instead(row: int, of: int, item: int) -> None:
            rows.extend((row, of))
            scales.extend((1.0, -1.0))
            items.extend((item, item))

        # Features are sorted: block by block, without the findings, which are in `stated`.
        index, values, owner = features.index, features.values, features.owner
        risks, levels, taken, results, person = (
            bisect_left(index, start)
            for start in (places.risks, places.values, places.measured, places.results, places.person)
        )
        for block, positive, negative, start in (
            (range(risks, levels), "risk", "no_risk", places.risks),
            (range(results, person), "positive", "negative", places.results),
        ):
            for number in block:
                rows.append(at[positive if values[number] > 0 else negative] + index[number] - start)
                scales.append(1.0)
                items.append(owner[number])
        analytes = [number - places.values for number in index[levels:taken]]
        for number in range(person, len(index)):
            place, value, item = index[number], values[number], owner[number]
            if place == places.person + 1:
                instead(unknown_sex + (1 if value > 0 else -1), unknown_sex, item)
            elif place == places.person + 2:
                instead(unknown_pregnancy + (1 if value > 0 else -1), unknown_pregnancy, item)
            elif place == places.person + COMPLAINT_PLACE:
                rows.append(at["complaint"])
                scales.append(1.0)
                items.append(item)
            elif place >= places.bands:
                instead(prior + place - places.bands, unknown_age, item)
        table = self.table
        distance = np.array(values[levels:taken], dtype=np.float32)[:, None]
        return Evidence(
            features.emergency,
            self.bases[int(features.emergency)],
            table.take(np.array(rows, dtype=np.intp), axis=0),
            np.array(scales, dtype=np.float32),
            np.array(items, dtype=np.intp),
            self._distances(distance, analytes),
            np.array(owner[levels:taken], dtype=np.intp),
        )

    def margins(self, evidence: Evidence) -> F32:
        """The margins [D]: base plus what every statement adds."""
        total = evidence.base + np.add.reduce(evidence.measured, axis=0)
        return np.asarray(total + evidence.scales @ evidence.said)

    def without(
        self,
        evidence: Evidence,
        facts: Sequence[int],
        ways: NDArray[np.intp],
        analytes: NDArray[np.intp],
        instead: F32,
    ) -> F32:
        """The margins [facts, D] without what one fact says.

        `analytes` say instead what `instead` [A, D] has, each without the fact that `ways` counts.
        """
        one = np.array(facts)[:, None]
        total = evidence.base + ((evidence.items != one) * evidence.scales) @ evidence.said
        total += (evidence.measured_items != one).astype(np.float32) @ evidence.measured
        for way, analyte in zip(ways.tolist(), analytes.tolist(), strict=True):
            total[way] += instead[analyte]
        return np.asarray(total)

    def at_distance(self, distance: float) -> F32:
        """What each analyte adds at some distance from normal [A, D]."""
        count = len(self.distances)
        return self._distances(np.full((count, 1), distance, dtype=np.float32), np.arange(count))

    def _distances(self, distance: F32, analytes: list[int] | NDArray[np.intp]) -> F32:
        """What measurements at some distances from normal [m, 1] add [m, D]."""
        width = len(self.usual)
        rows = self.distances.take(analytes, axis=0)
        mean, precision, offset, least = (rows[:, at : at + width] for at in range(0, 4 * width, width))
        return against_average(distance, mean, precision, offset, least, self.usual)

    def shares(
        self,
        evidence: Evidence,
        every: NDArray[np.intp],
        columns: NDArray[np.intp],
        pull: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """What each fact adds to some of the margins [facts, columns]; items are facts here.

        `every` [facts, 1] are the numbers of the facts.  With `pull` [D] a last column is what each adds to
        something that the margins move by that much.
        """
        count, said = len(columns), len(evidence.items)
        each = np.zeros((said + len(evidence.measured_items), count + (pull is not None)))
        each[:said, :count] = evidence.said.take(columns, axis=1)
        each[said:, :count] = evidence.measured.take(columns, axis=1)
        if pull is not None:
            each[:said, count] = evidence.said @ pull
            each[said:, count] = evidence.measured @ pull
        each[:said] *= evidence.scales[:, None]
        return np.asarray((np.concatenate([evidence.items, evidence.measured_items]) == every) @ each)


def against_average(distance: F32, mean: F32, precision: F32, offset: F32, least: F32, usual: F32) -> F32:
    """Log likelihood ratios [m, D] of measurements against the average visitor, each bounded.

    `distance` [m, 1] from normal; `mean`, `precision`, `offset` and `least` (the lowest a ratio goes) [m, D]
    of the diseases; the average visitor is the mixture of all diseases in their shares `usual` [D].
    """
    # In place where it can be: most of the time would go to making room for what is used once.
    added = distance - mean
    half = added * -0.5
    added *= half
    added *= precision
    added += offset
    added -= np.maximum.reduce(added, axis=1, keepdims=True, initial=-np.inf)
    np.exp(added, out=half)
    added -= np.log(half @ usual)[:, None]
    np.maximum(added, least, out=added)
    return np.asarray(np.minimum(added, TEXTBOOK_LIMIT, out=added))


_TABLES = ("present", "absent", "risk", "no_risk", "positive", "negative", "sex", "pregnant", "complaint")


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

    def hidden(self, rows: F32, values: F32) -> F32:
        """What reaches the hidden layer [H] when the features of some `rows` of `w1` are known."""
        return np.asarray(self.b1 + values @ rows)

    def output(self, hidden: F32) -> F32:
        """The outputs [..., C] of hidden layers [..., H]."""
        return np.asarray(np.maximum(hidden, 0) @ self.w2 + self.b2)

    def shares(self, hidden: F32, resting: F32, rows: F32, columns: NDArray[np.intp]) -> F32:
        """What a unit of each feature adds to some outputs [features, columns] on the way from the resting
        state; `rows` are the features' in `w1`.
        """
        change = hidden - resting
        gain = np.maximum(hidden, 0) - np.maximum(resting, 0)
        slope = np.divide(gain, change, out=(hidden > 0).astype(np.float32), where=np.abs(change) > 1e-9)
        return np.asarray(rows @ (slope[:, None] * self.w2.take(columns, axis=1)))
