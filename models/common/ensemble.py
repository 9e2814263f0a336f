"""The ensemble: from features to pooled margins, probabilities and the shares of each fact in them.

Responsible for the members at serving and their pool; the likelihood of the knowledge, boosted trees and
a neural net that add to it, and a random forest.  Parameters come from a model bundle.  What is shown of
it, and counterfactuals, are `differential` and `alternatives`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from fhir_adapters.features import Features
from models.common.grove import Grove, Grown
from models.common.implied import Implied
from models.common.members import SETTING_PLACE, Arrays, Evidence, Likelihood, Network, Places
from models.common.shapley import Baseline

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
SEVERITY_COUNT = 5
AS_NORMAL = 1e-4
"""A measurement at the normal of the patient's age; exactly 0 would mean that it was not taken."""
MEMBERS = ("likelihood", "boosted", "network", "forest")


class Stack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of pool, calibration and conformal sets (``stack.json``).

    `disease` and `severity` are the weights of the members (likelihood, boosted, network, forest; for
    severity the first is the one implied by the diseases), `immediate` those of the rules and the members
    (of the likelihood: what its diseases imply).  Temperatures divide pooled margins.  A disease is in the
    set when its probability is at least `set_threshold`.  `similarity` are the quantiles (0, 1, ... 100 %)
    of how well known patients are explained (mean log chance).
    """

    disease: tuple[float, float, float, float]
    disease_bias: tuple[float, ...]
    disease_temperature: float
    severity: tuple[float, float, float, float]
    severity_bias: tuple[float, ...]
    severity_temperature: float
    immediate: tuple[float, float, float, float, float]
    immediate_bias: float
    set_threshold: float
    coverage: float
    similarity: tuple[float, ...]
    forest_floor: float


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What the ensemble says of one patient: margins and probabilities, and what explaining them needs.

    `index`, `values` and `owner` [n] are the features known, `rows` [n, H] theirs in the net and `hidden`
    [H] what they add up to there.  `likelihood` [D] are that member's margins, and `implied` the logit of
    immediate attention that they imply.
    """

    margins: F64
    disease: F64
    severity: F64
    immediate_logit: float
    likelihood: F32
    implied: float
    evidence: Evidence
    index: NDArray[np.intp]
    values: F32
    owner: NDArray[np.intp]
    rows: F32
    hidden: F32
    grown: Grown

    @property
    def forest_share(self) -> F32:
        """The share of each output in the leaves of the forest [C]."""
        return self.grown.share


@dataclass(frozen=True)
class Resting:
    """The members' state for a visitor of whom only the setting is known: where explanations start."""

    grown: Grown
    baseline: Baseline
    hidden: F32
    network: F32


class Ensemble:
    """The members with their arrays prepared; immutable, shared by all calls of a process."""

    def __init__(
        self,
        arrays: Arrays,
        stack: Stack,
        places: Places,
        severity_mix: F64,
        categories: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self.stack = stack
        self._implied = Implied.of(arrays)
        self.places = places
        self._likelihood = Likelihood.of(arrays, categories)
        self._normal = self._likelihood.at_distance(AS_NORMAL)
        self._still = [float(self._implied.logit(base)) for base in self._likelihood.bases]
        self._network = Network.of(arrays)
        self._grove = Grove(arrays)
        self._usual = arrays["forest.usual"].astype(np.float64)
        self._bias = np.array(stack.disease_bias)
        self._mix = severity_mix
        self.count = len(self._bias)
        self.width = self.count + SEVERITY_COUNT + 1
        # Weights of the members and bias of what can be explained: the diseases and immediate attention.
        self._weights = np.zeros((len(MEMBERS), self.width))
        self._weights[:, : self.count] = np.array(stack.disease)[:, None]
        self._weights[:, -1] = stack.immediate[1:]
        self._offset = np.zeros(self.width)
        self._offset[: self.count], self._offset[-1] = stack.disease_bias, stack.immediate_bias
        self._last = np.array([self.width - 1])
        # There are as many resting states as settings; each is worked out once, and not at a first call.
        self._resting: dict[tuple[tuple[int, ...], tuple[float, ...]], Resting] = {}
        for setting in ((), (1.0,), (-1.0,)):
            place = np.full(len(setting), places.person + SETTING_PLACE, dtype=np.intp)
            self._rest(place, np.array(setting, dtype=np.float32))

    def run(self, features: Features, rules_logit: float) -> Outcome:
        """Margins and probabilities of one patient; `rules_logit` is what the published rules give."""
        stack, count = self.stack, self.count
        index = np.array(features.index, dtype=np.intp)
        values = np.array(features.values, dtype=np.float32)
        evidence = self._likelihood.read(features, self.places)
        likelihood = self._likelihood.margins(evidence)
        rows = self._network.w1.take(index, axis=0)
        hidden = self._network.hidden(rows, values)
        network = self._network.output(hidden)
        grown = self._grove.grow(index, values)
        boosted, share = grown.boosted, grown.share
        margins, forest = self._pooled(likelihood, boosted, network, share)
        disease = _softmax(margins, stack.disease_temperature)
        one, two, three, four = stack.severity
        scores = [
            (one * math.log(mixed + 1e-4) + two * grew + three * net + four * grown_share + bias)
            / stack.severity_temperature
            for mixed, grew, net, grown_share, bias in zip(
                (disease @ self._mix).tolist(),
                boosted[count:-1].tolist(),
                network[count:-1].tolist(),
                forest[count:].tolist(),
                stack.severity_bias,
                strict=True,
            )
        ]
        highest = max(scores)
        power = [math.exp(score - highest) for score in scores]
        every = math.fsum(power)
        severity = np.array([one / every for one in power])
        last, floor = float(share[-1]), stack.forest_floor
        implied = float(self._implied.logit(likelihood))
        immediate = (
            stack.immediate[0] * rules_logit
            + stack.immediate[1] * implied
            + stack.immediate[2] * float(boosted[-1])
            + stack.immediate[3] * float(network[-1])
            + stack.immediate[4] * math.log((last + floor) / (1 - last + floor))
            + stack.immediate_bias
        )
        return Outcome(
            margins,
            disease,
            severity,
            immediate,
            likelihood,
            implied,
            evidence,
            index,
            values,
            np.array(features.owner, dtype=np.intp),
            rows,
            hidden,
            grown,
        )

    def _pooled(self, likelihood: F32, boosted: F64, network: F32, share: F32) -> tuple[F64, F64]:
        """Pooled margins of the diseases, and what the forest says of diseases and severity."""
        forest = np.log(share[..., :-1] + self.stack.forest_floor) - self._usual[:-1]
        one, two, three, four = self.stack.disease
        count = self.count
        margins = four * forest[..., :count]
        margins += two * boosted[..., :count]
        margins += one * likelihood
        margins += three * network[..., :count]
        margins += self._bias
        return np.asarray(margins), forest

    def otherwise(self, outcome: Outcome, facts: Sequence[int]) -> F64:
        """The disease probabilities [facts, D] if one fact were not there, or its measurement normal.

        Only what the facts touch is worked out again.  `outcome` must be owned by facts.
        """
        places = self.places
        ways, place = (outcome.owner == np.array(facts)[:, None]).nonzero()
        index, before = outcome.index.take(place), outcome.values.take(place)
        measured = (index >= places.measured) & (index < 2 * places.measured - places.values)
        value = (index >= places.values) & (index < places.measured)
        after = measured * before + value * np.float32(AS_NORMAL)
        change = np.zeros((len(facts), len(outcome.index)), dtype=np.float32)
        change[ways, place] = after - before
        hidden = outcome.hidden + change @ outcome.rows
        boosted, share = self._grove.otherwise(outcome.grown, len(facts), ways, index, before, after)
        likelihood = self._likelihood.without(
            outcome.evidence, facts, ways[value], index[value] - places.values, self._normal
        )
        margins, _ = self._pooled(likelihood, boosted, self._network.output(hidden), share)
        return _softmax(margins, self.stack.disease_temperature)

    def _rest(self, index: NDArray[np.intp], values: F32) -> Resting:
        key = (tuple(index.tolist()), tuple(values.tolist()))
        known = self._resting.get(key)
        if known is None:
            grown = self._grove.grow(index, values)
            baseline = Baseline.of(self._grove.trees, grown.turned)
            hidden = self._network.hidden(self._network.w1[index], values)
            known = Resting(grown, baseline, hidden, self._network.output(hidden))
            self._resting[key] = known
        return known

    def explain(
        self, outcome: Outcome, facts: int, columns: NDArray[np.intp], immediate: bool
    ) -> tuple[F64, F64]:
        """Contributions [facts, columns] to pooled margins, and the baseline margin of each column.

        `columns` are disease numbers; with `immediate` the last column is the logit of immediate
        attention (without the rules' part, which the rules explain themselves).  Baseline plus
        contributions is the pooled margin.
        """
        asked = np.concatenate([columns, self._last]) if immediate else columns
        count, owner = len(columns), outcome.owner
        resting = owner < 0
        rest = self._rest(outcome.index[resting], outcome.values[resting])
        weights = self._weights.take(asked, axis=1)
        # Of the forest the values are those of the shares; the change of the logarithm is divided in
        # their proportion.
        slope, forest_base = self._log_of_share(outcome.forest_share, rest.grown.share, asked)
        by_feature = np.full(self._network.w1.shape[0], -1, dtype=np.intp)
        by_feature[outcome.index] = owner
        total = self._grove.explain(
            outcome.grown, rest.baseline, asked, by_feature, (weights[1], weights[3] * slope), facts
        )
        every = np.arange(facts)[:, None]
        moved = (owner == every) * outcome.values
        total += weights[2] * (moved @ self._network.shares(outcome.hidden, rest.hidden, outcome.rows, asked))
        evidence = outcome.evidence
        base = np.zeros(len(asked))
        base[:count] = evidence.base[columns]
        pull = None
        if immediate:
            base[-1] = still = self._still[evidence.emergency]
            pull = self._implied.pull(evidence.base, outcome.likelihood, outcome.implied - still)
        total += weights[0] * self._likelihood.shares(evidence, every, columns, pull)
        baseline = (
            weights[0] * base
            + weights[1] * rest.grown.boosted[asked]
            + weights[2] * rest.network[asked]
            + weights[3] * forest_base
            + self._offset.take(asked)
        )
        return total, baseline

    def _log_of_share(self, now: F32, rest: F32, asked: NDArray[np.intp]) -> tuple[F64, F64]:
        """How a change of each share changes what the pool reads of it, and the resting state of that."""
        floor, last = self.stack.forest_floor, self.width - 1
        slopes: list[float] = []
        bases: list[float] = []
        for column, share, still in zip(
            asked.tolist(), now.take(asked).tolist(), rest.take(asked).tolist(), strict=True
        ):
            high, low = math.log(share + floor), math.log(still + floor)
            if column == last:
                high -= math.log(1 - share + floor)
                low -= math.log(1 - still + floor)
            moved = abs(share - still) > 1e-9
            slopes.append((high - low) / (share - still) if moved else 0.0)
            bases.append(low if moved else high)
        return np.array(slopes), np.array(bases) - self._usual.take(asked)


def _softmax(margins: F64, temperature: float) -> F64:
    """Probabilities along the last axis."""
    power = margins / temperature
    power -= np.maximum.reduce(power, axis=-1, keepdims=True)
    np.exp(power, out=power)
    power /= np.add.reduce(power, axis=-1, keepdims=True)
    return np.asarray(power)
