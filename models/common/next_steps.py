"""What to find out next: the questions and tests that would tell the leading diseases apart best.

The expected information of a yes/no finding about which disease it is: the entropy of its answer less
the mean entropy given the disease, in bits (mutual information; Shannon 1948).  Chances come from the
knowledge; likelihood ratios of tests are turned into chances of a positive result when the bundle is
built.  Which test is already done or ordered is decided where orders are known.
"""

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
    ) -> None:
        self._keys = schema.findings
        self._above = schema.above
        self._tests = tests
        # What a test shows is ordered, not asked for; small children are not asked how they feel.
        asked_from = arrays["knowledge.asked_from"].astype(np.float64)
        self._asked = np.flatnonzero(np.isfinite(asked_from))
        self._asked_from = asked_from[self._asked]
        # Which tests tell which diseases apart, as the knowledge says.
        self._pairs: dict[int, list[tuple[int, int]]] = {}
        for test, one, other in arrays["knowledge.test_pairs"].tolist():
            self._pairs.setdefault(test, []).append((one, other))
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
        danger = np.array([diseases[number].immediate for number in leading.tolist()])
        weight = disease[leading] * (1 + DANGER * danger)
        weight = (weight / weight.sum()).astype(np.float32)
        names = [diseases[number].id for number in leading.tolist()]
        known = self._known(features)
        chance, test_chance = self._chance[leading].T, self._test_chance[leading].T
        asks = information(chance, self._entropy[leading].T, weight)
        asks[known[self._asked]] = 0.0
        if features.age_years is not None:
            asks[self._asked_from > features.age_years] = 0.0
        tests = information(test_chance, self._test_entropy[leading].T, weight)
        steps: list[NextStep] = []
        for place in self._apart_in_kind(_top(asks, 4 * SHOWN["ask"]))[: SHOWN["ask"]]:
            number = int(self._asked[place])
            step = NextStep(
                "ask",
                self._keys[number],
                self._labels[number],
                float(asks[place]),
                _apart(chance[place], weight, names),
            )
            steps.append(step)
        places = {number: place for place, number in enumerate(leading.tolist())}
        for place in _top(tests, SHOWN["test"]):
            pair, gain = self._told_apart(place, test_chance[place], weight, places)
            steps.append(
                NextStep(
                    "test",
                    self._tests[place],
                    self._tests[place],
                    float(tests[place]) if gain is None else gain,
                    tuple([names[number] for number in pair]),
                )
            )
        return tuple(steps)

    def _told_apart(
        self, test: int, chance: F32, weight: F32, places: dict[int, int]
    ) -> tuple[tuple[int, ...], float | None]:
        """The two leading diseases (places) that a test tells apart best, and how many bits it tells of them.

        Only pairs that the knowledge says the test separates; none when it says so of no two of them.
        """
        best: tuple[float, tuple[int, ...], float | None] = (0.0, (), None)
        for first, second in self._pairs.get(test, ()):
            if first in places and second in places:
                pair = np.array([places[first], places[second]])
                both = weight[pair]
                shown = chance[pair]
                told = float(information(shown[None], _entropy(shown)[None], both / both.sum())[0])
                if told >= LEAST_GAIN and told * float(both.sum()) > best[0]:
                    order = (int(pair[shown.argmax()]), int(pair[shown.argmin()]))
                    best = (told * float(both.sum()), order, told)
        return best[1], best[2]

    def _apart_in_kind(self, places: list[int]) -> list[int]:
        """Some places in `_asked`, without findings that are a kind of, or what is above, an earlier one."""
        kept: list[int] = []
        for place in places:
            number = int(self._asked[place])
            others = [int(self._asked[other]) for other in kept]
            related = any(number in self._above[other] or other in self._above[number] for other in others)
            if not related:
                kept.append(place)
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
    return np.asarray(-(inside * np.log2(inside) + other * np.log2(other)))


def _top(gain: F32, count: int) -> list[int]:
    enough = (gain >= LEAST_GAIN).nonzero()[0]
    best = np.argsort(-gain.take(enough), kind="stable")[:count]
    found: list[int] = enough.take(best).tolist()
    return found


def _apart(chance: F32, weight: F32, names: Sequence[str]) -> tuple[str, ...]:
    """The two diseases that an answer tells apart most, weighed by how probable they are."""
    mean = chance @ weight
    pull = weight * (chance - mean)
    return (names[int(pull.argmax())], names[int(pull.argmin())])
