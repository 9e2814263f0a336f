"""What to find out next: the questions and tests that would tell the leading diseases apart best.

The expected information of a yes/no finding about which disease it is: the entropy of its answer less
the mean entropy given the disease, in bits (mutual information; Shannon 1948).  Chances come from the
knowledge; likelihood ratios of tests are turned into chances of a positive result when the bundle is
built.  Which test is already done or ordered is decided where orders are known.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.features import Features, FeatureSchema
from models.assessment import NextStep
from models.common.disease import DiseaseInfo
from models.common.members import Arrays

F32 = NDArray[np.float32]
LEADING = 12
"""Diseases among which steps should decide."""
SHOWN = {"ask": 3, "test": 3}
LEAST_GAIN = 0.02
"""Bits under which a step is not worth naming."""
RULES_IN = 5.0
"""Positive likelihood ratio from which a test speaks for a disease against any other (moderate to large
shifts: Jaeschke et al. 1994, JAMA 271:703)."""
DANGER = 3.0
"""How much more a disease that always needs attention within minutes weighs than one that never does: to
know whether it is this is worth more.  Grade C: set by this project."""


class NextSteps:
    """The knowledge by finding and by test; immutable."""

    def __init__(
        self,
        schema: FeatureSchema,
        chance: F32,
        arrays: Arrays,
        tests: tuple[str, ...],
        diseases: Sequence[DiseaseInfo] = (),
    ) -> None:
        self._keys = schema.findings
        self._above = [frozenset(numbers) for numbers in schema.above]
        self._tests = tests
        # What a test shows is ordered, not asked for; small children are not asked how they feel.
        asked_from = arrays["knowledge.asked_from"].astype(np.float64)
        self._asked = np.flatnonzero(np.isfinite(asked_from))
        self._numbers: list[int] = self._asked.tolist()
        self._asked_from = asked_from[self._asked]
        # Which tests tell which diseases apart, as the knowledge says.
        self._pairs: dict[int, list[tuple[int, int]]] = {}
        for test, one, other in arrays["knowledge.test_pairs"].tolist():
            self._pairs.setdefault(test, []).append((one, other))
        # Which diseases a test rules in, whatever else it may be.
        self._rules_in: dict[int, list[int]] = {}
        place = {name: number for number, name in enumerate(tests)}
        for number, disease in enumerate(diseases):
            for name, positive, _ in disease.tests:
                if positive >= RULES_IN and name in place:
                    self._rules_in.setdefault(place[name], []).append(number)
        # A row for each disease: the few that lead are next to one another in memory.
        self._chance = np.ascontiguousarray(chance[self._asked].T)
        self._test_chance = np.ascontiguousarray(arrays["knowledge.test"].astype(np.float32).T)
        self._entropy = _entropy(self._chance)
        self._test_entropy = _entropy(self._test_chance)
        labels = arrays["knowledge.labels"]
        self._labels = [str(labels[number]) for number in range(len(labels))]

    def best(
        self,
        features: Features,
        disease: NDArray[np.float64],
        order: NDArray[np.intp],
        diseases: Sequence[DiseaseInfo],
    ) -> tuple[NextStep, ...]:
        """The best questions, then the best tests, each by falling information.

        The leading diseases count by probability, the dangerous ones more (`DANGER`).  Of findings that
        are kinds of one another only the most telling is asked for.
        """
        leading = order[:LEADING]
        first = [diseases[number] for number in leading.tolist()]
        weighed = [
            probability * (1 + DANGER * one.immediate)
            for probability, one in zip(disease.take(leading).tolist(), first, strict=True)
        ]
        every = sum(weighed)
        weight = np.array([one / every for one in weighed], dtype=np.float32)
        names = [one.id for one in first]
        known = self._known(features)
        chance = self._chance.take(leading, axis=0).T
        test_chance = self._test_chance.take(leading, axis=0).T
        asks = information(chance, self._entropy.take(leading, axis=0).T, weight)
        asks[known[self._asked]] = 0.0
        if features.age_years is not None:
            asks[self._asked_from > features.age_years] = 0.0
        tests = information(test_chance, self._test_entropy.take(leading, axis=0).T, weight)
        steps: list[NextStep] = []
        places = self._apart_in_kind(_top(asks, 4 * SHOWN["ask"]))[: SHOWN["ask"]]
        for place, gain, apart in _telling(places, asks, chance, weight, names):
            number = self._numbers[place]
            steps.append(NextStep("ask", self._keys[number], self._labels[number], gain, apart))
        at = {number: place for place, number in enumerate(leading.tolist())}
        for place in _top(tests, SHOWN["test"]):
            pair, told = self._told_apart(place, test_chance[place].tolist(), weight.tolist(), at)
            name = self._tests[place]
            gain = float(tests[place]) if told is None else told
            steps.append(NextStep("test", name, name, gain, tuple([names[number] for number in pair])))
        return tuple(steps)

    def _told_apart(
        self, test: int, chance: list[float], weight: list[float], at: dict[int, int]
    ) -> tuple[tuple[int, ...], float | None]:
        """The two leading diseases (places) that a test tells apart best, and how many bits it tells of them.

        Only pairs that the knowledge says the test separates, and those of a disease that it rules in; none
        when there is no such pair.
        """
        best: tuple[float, tuple[int, ...], float | None] = (0.0, (), None)
        ruled_in = [(number, other) for number in self._rules_in.get(test, ()) for other in at]
        for number, other in (*self._pairs.get(test, ()), *ruled_in):
            if number in at and other in at and number != other:
                one, two = at[number], at[other]
                both = weight[one] + weight[two]
                share = weight[one] / both
                mean = share * chance[one] + (1 - share) * chance[two]
                told = _bits(mean) - share * _bits(chance[one]) - (1 - share) * _bits(chance[two])
                if told >= LEAST_GAIN and told * both > best[0]:
                    order = (one, two) if chance[one] >= chance[two] else (two, one)
                    best = (told * both, order, told)
        return best[1], best[2]

    def _apart_in_kind(self, places: list[int]) -> list[int]:
        """Some places in `_asked`, without findings that are a kind of, or what is above, an earlier one."""
        kept: list[int] = []
        numbers: list[int] = []
        for place in places:
            number = self._numbers[place]
            above = self._above[number]
            if above.isdisjoint(numbers) and not any(number in self._above[other] for other in numbers):
                kept.append(place)
                numbers.append(number)
        return kept

    def _known(self, features: Features) -> NDArray[np.bool_]:
        """Findings about which the chart already speaks, with what is practically the same question."""
        known = np.zeros(len(self._keys), dtype=bool)
        known[np.array(features.index[: bisect_left(features.index, len(known))], dtype=np.intp)] = True
        return known


def information(chance: F32, entropy: F32, weight: F32) -> F32:
    """Expected information [N] in bits of answers with P(yes | disease) `chance` [N, L].

    `entropy` is that of each chance (kept, since logarithms are what takes time).
    """
    return np.asarray(_entropy(chance @ weight) - entropy @ weight)


def _entropy(chance: F32) -> F32:
    inside = np.minimum(np.maximum(chance, 1e-6), 1 - 1e-6)
    other = 1 - inside
    found = np.log2(inside)
    found *= inside
    inside = np.log2(other)
    inside *= other
    found += inside
    return np.negative(found, out=found)


def _bits(chance: float) -> float:
    """The entropy of one yes/no answer in bits."""
    inside = min(max(chance, 1e-6), 1 - 1e-6)
    return -(inside * math.log2(inside) + (1 - inside) * math.log2(1 - inside))


def _top(gain: F32, count: int) -> list[int]:
    enough = (gain >= LEAST_GAIN).nonzero()[0]
    best = np.argsort(-gain.take(enough), kind="stable")[:count]
    found: list[int] = enough.take(best).tolist()
    return found


def _telling(
    places: list[int], gain: F32, chance: F32, weight: F32, names: Sequence[str]
) -> list[tuple[int, float, tuple[str, ...]]]:
    """Some places with their gains and the two diseases that an answer tells apart most, weighed by how
    probable they are."""
    if not places:
        return []
    rows = chance.take(places, axis=0)
    pull = weight * (rows - (rows @ weight)[:, None])
    most, least = pull.argmax(axis=1).tolist(), pull.argmin(axis=1).tolist()
    apart = [(names[high], names[low]) for high, low in zip(most, least, strict=True)]
    return list(zip(places, gain.take(places).tolist(), apart, strict=True))
