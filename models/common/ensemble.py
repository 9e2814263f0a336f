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
from models.common.forest import Trees, reach
from models.common.members import Arrays, Evidence, Likelihood, Network, Places

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
SEVERITY_COUNT = 5
MEMBERS = ("likelihood", "boosted", "network", "forest")


class Stack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of pool, calibration and conformal sets (``stack.json``).

    `disease` and `severity` are the weights of the members (likelihood, boosted, network, forest; for
    severity the first is the one implied by the diseases), `immediate` those of rules, boosted, network
    and forest.  Temperatures divide pooled margins.  A disease is in the set when its probability is at
    least `set_threshold`.  `similarity` are the quantiles (0, 1, ... 100 %) of how well known patients
    are explained.
    """

    disease: tuple[float, float, float, float]
    disease_bias: tuple[float, ...]
    disease_temperature: float
    severity: tuple[float, float, float, float]
    severity_bias: tuple[float, ...]
    severity_temperature: float
    immediate: tuple[float, float, float, float]
    immediate_bias: float
    set_threshold: float
    coverage: float
    similarity: tuple[float, ...]
    forest_floor: float


@dataclass(frozen=True)
class Outcome:
    """What the ensemble says of one patient: margins and probabilities, and what explaining them needs."""

    margins: F64
    disease: F64
    severity: F64
    immediate_logit: float
    evidence: Evidence
    index: NDArray[np.int32]
    values: F32
    owner: NDArray[np.int32]
    hidden: F32
    step: NDArray[np.int32]
    forest_share: F32


@dataclass(frozen=True)
class Resting:
    """The members' state for a visitor of whom only the setting is known: where explanations start."""

    step: NDArray[np.int32]
    grown: F64
    share: F32
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
        self.places = places
        self._likelihood = Likelihood.of(arrays, categories)
        self._network = Network.of(arrays)
        self._join(arrays)
        self._usual = arrays["forest.usual"].astype(np.float64)
        self._bias = np.array(stack.disease_bias)
        self._severity_bias = np.array(stack.severity_bias)
        self._mix = severity_mix
        self.count = len(self._bias)
        self.width = self.count + SEVERITY_COUNT + 1

    def _join(self, arrays: Arrays) -> None:
        """Boosted trees and forest over one numbering of nodes, with what their leaves hold."""
        boosted, forest = Trees.of(arrays, "boosted"), Trees.of(arrays, "forest")
        trees, mine, theirs = boosted.with_others(forest)
        self._trees = trees
        self._boosted_count = len(boosted.roots)
        self._forest_count = len(forest.roots)
        self._column = arrays["boosted.column"].astype(np.int32)
        self._base = arrays["boosted.base"].astype(np.float64)
        width = len(self._base)
        self._value = np.zeros(len(trees.left))
        self._value[mine] = arrays["boosted.value"]
        # Leaf distributions of the forest, dense; `_leaf` finds the row of a node.
        first = int(arrays["forest.first"])
        start = arrays["forest.start"].astype(np.int64)
        self._leaf = np.zeros(len(trees.left), dtype=np.int32)
        self._leaf[theirs[first:]] = np.arange(len(start) - 1, dtype=np.int32)
        self._share = np.zeros((len(start) - 1, width), dtype=np.float32)
        rows = np.repeat(np.arange(len(start) - 1), np.diff(start))
        self._share[rows, arrays["forest.column"].astype(np.int64)] = arrays["forest.share"]
        order = np.argsort(self._column, kind="stable")
        starts = np.searchsorted(self._column[order], np.arange(width + 1))
        # The trees of each output: the slices that explanations need.
        self._slices = [trees.roots[order[starts[c] : starts[c + 1]]] for c in range(width)]
        self._boosted_roots = trees.roots[: self._boosted_count]
        self._boosted_depth = boosted.depth
        self._forest_roots = trees.roots[self._boosted_count :]
        self._feature = np.full(len(trees.left), len(trees.starts) - 2, dtype=np.int32)
        lengths = np.diff(trees.starts)
        self._feature[: trees.starts[-1]] = np.repeat(np.arange(len(lengths)), lengths)
        self._features = len(trees.starts) - 1
        # There are as many resting states as settings; each is worked out once.
        self._resting: dict[tuple[tuple[int, ...], tuple[float, ...]], Resting] = {}

    def run(self, features: Features, rules_logit: float) -> Outcome:
        """Margins and probabilities of one patient; `rules_logit` is what the published rules give."""
        stack, count = self.stack, self.count
        index = np.array(features.index, dtype=np.int32)
        values = np.array(features.values, dtype=np.float32)
        evidence = self._likelihood.read(features, self.places)
        likelihood = self._likelihood.margins(evidence)
        hidden = self._network.hidden(index, values)
        network = self._network.output(hidden)
        step = self._trees.steps(index, values)
        boosted, share = self._grown(step)
        margins, forest = self._pooled(likelihood, boosted, network, share)
        disease = _softmax(margins / stack.disease_temperature)
        implied = np.log(disease @ self._mix + 1e-4)
        severity = _softmax(
            (
                stack.severity[0] * implied
                + stack.severity[1] * boosted[count:-1]
                + stack.severity[2] * network[count:-1]
                + stack.severity[3] * forest[count:]
                + self._severity_bias
            )
            / stack.severity_temperature
        )
        last, floor = float(share[-1]), stack.forest_floor
        immediate = (
            stack.immediate[0] * rules_logit
            + stack.immediate[1] * float(boosted[-1])
            + stack.immediate[2] * float(network[-1])
            + stack.immediate[3] * math.log((last + floor) / (1 - last + floor))
            + stack.immediate_bias
        )
        return Outcome(
            margins,
            disease,
            severity,
            immediate,
            evidence,
            index,
            values,
            np.array(features.owner, dtype=np.int32),
            hidden,
            step,
            share,
        )

    def _grown(self, step: NDArray[np.int32]) -> tuple[F64, F32]:
        """Margins of the boosted trees and shares of the forest [C] at some steps."""
        value = self._value[self._trees.leaves(step, self._boosted_roots, self._boosted_depth)]
        boosted = self._base + np.bincount(self._column, value, minlength=self.width)
        return boosted, self._shares(self._trees.leaves(step, self._forest_roots))

    def _pooled(self, likelihood: F32, boosted: F64, network: F32, share: F32) -> tuple[F64, F64]:
        """Pooled margins of the diseases, and what the forest says of diseases and severity."""
        forest = np.log(share[:-1] + self.stack.forest_floor) - self._usual[:-1]
        one, two, three, four = self.stack.disease
        count = self.count
        margins = (
            one * likelihood
            + two * boosted[:count]
            + three * network[:count]
            + four * forest[:count]
            + self._bias
        )
        return margins.astype(np.float64), forest

    def otherwise(self, outcome: Outcome, fact: int, normal: float) -> F64:
        """The disease probabilities if one fact were not there, or its measurement were `normal`.

        Only what the fact touches is worked out again.  `outcome` must be owned by facts; `normal` is the
        value of a measurement at the normal of the patient's age (not 0, which would be "not taken").
        """
        places = self.places
        gone = np.flatnonzero(outcome.owner == fact)
        index, before = outcome.index[gone], outcome.values[gone]
        measured = (index >= places.measured) & (index < 2 * places.measured - places.values)
        value = (index >= places.values) & (index < places.measured)
        after = np.where(measured, before, np.where(value, np.float32(normal), np.float32(0)))
        hidden = outcome.hidden + (after - before) @ self._network.w1[index]
        boosted, share = self._grown(self._trees.turned(outcome.step, index, after))
        likelihood = self._likelihood.without(
            outcome.evidence, fact, (index[value] - places.values).astype(np.intp), normal
        )
        margins, _ = self._pooled(likelihood, boosted, self._network.output(hidden), share)
        return _softmax(margins / self.stack.disease_temperature)

    def _rest(self, index: NDArray[np.int32], values: F32) -> Resting:
        key = (tuple(index.tolist()), tuple(values.tolist()))
        known = self._resting.get(key)
        if known is None:
            step = self._trees.steps(index, values)
            leaves = self._trees.leaves(step)
            hidden = self._network.hidden(index, values)
            grown = np.zeros(len(self._trees.left))
            grown[self._trees.roots] = self._value[leaves]
            known = Resting(
                step, grown, self._shares(leaves[self._boosted_count :]), hidden, self._network.output(hidden)
            )
            self._resting[key] = known
        return known

    def _shares(self, leaves: NDArray[np.int32]) -> F32:
        """Mean leaf distribution of the forest [C]."""
        return np.asarray(self._share[self._leaf[leaves]].mean(axis=0))

    def explain(
        self, outcome: Outcome, facts: int, columns: NDArray[np.intp], immediate: bool
    ) -> tuple[F64, F64]:
        """Contributions [facts, columns] to pooled margins, and the baseline margin of each column.

        `columns` are disease numbers; with `immediate` the last column is the logit of immediate
        attention (without the rules' part, which the rules explain themselves).  Baseline plus
        contributions is the pooled margin.
        """
        asked = np.append(columns, self.width - 1) if immediate else columns
        owner = outcome.owner
        resting = np.flatnonzero(owner < 0)
        still_index, still_values = outcome.index[resting], outcome.values[resting]
        by_feature = np.full(self._features, -1, dtype=np.int32)
        by_feature[outcome.index] = owner
        rest = self._rest(still_index, still_values)
        trees, tree_base, forest, forest_base = self._explain_trees(outcome, facts, asked, by_feature, rest)
        net, net_base = self._explain_network(outcome, facts, asked, rest)
        likelihood = np.zeros((facts, len(asked)))
        base = np.zeros(len(asked))
        count = len(columns)
        likelihood[:, :count] = self._likelihood.shares(outcome.evidence, facts, columns)
        base[:count] = outcome.evidence.base[columns]
        stack = self.stack
        weights = np.array([[w] * count for w in stack.disease])
        bias = self._bias[columns]
        if immediate:
            weights = np.hstack([weights, np.array([[0.0], *[[w] for w in stack.immediate[1:]]])])
            bias = np.append(bias, stack.immediate_bias)
        total = weights[0] * likelihood + weights[1] * trees + weights[2] * net + weights[3] * forest
        baseline = (
            weights[0] * base
            + weights[1] * tree_base
            + weights[2] * net_base
            + weights[3] * forest_base
            + bias
        )
        return total, baseline

    def _explain_trees(
        self,
        outcome: Outcome,
        facts: int,
        asked: NDArray[np.intp],
        owner: NDArray[np.int32],
        rest: Resting,
    ) -> tuple[F64, F64, F64, F64]:
        """Exact Shapley values [facts, columns] and baselines of the boosted trees and of the forest.

        Of the forest they are those of the shares; the change of the logarithm is divided in their
        proportion.
        """
        slices = [self._slices[column] for column in asked]
        which = np.repeat(np.arange(len(asked)), [len(part) for part in slices])
        roots = np.concatenate([*slices, self._forest_roots])
        found = reach(roots, outcome.step, rest.step, self._feature, owner, facts)
        boosted = np.flatnonzero(found.tree < len(which))
        grown = np.flatnonzero(found.tree >= len(which))
        columns = len(asked)
        values = np.zeros((len(found.leaf), 2 * columns))
        values[boosted, which[found.tree[boosted]]] = self._value[found.leaf[boosted]]
        values[grown, columns:] = self._share[self._leaf[found.leaf[grown]][:, None], asked]
        amounts = found.shapley(values)
        resting = rest.grown[roots[: len(which)]]
        base = self._base[asked] + np.bincount(which, resting, minlength=columns)
        slope, forest_base = self._log_of_share(
            outcome.forest_share[asked].astype(np.float64), rest.share[asked].astype(np.float64), asked
        )
        return amounts[:, :columns], base, amounts[:, columns:] / self._forest_count * slope, forest_base

    def _log_of_share(self, now: F64, rest: F64, asked: NDArray[np.intp]) -> tuple[F64, F64]:
        """How a change of each share changes what the pool reads of it, and the resting state of that."""
        floor = self.stack.forest_floor
        high, low = np.log(now + floor), np.log(rest + floor)
        if asked[-1] == self.width - 1:
            high[-1] -= math.log(1 - now[-1] + floor)
            low[-1] -= math.log(1 - rest[-1] + floor)
        change = now - rest
        still = np.abs(change) <= 1e-9
        slope = np.divide(high - low, change, out=np.zeros_like(change), where=~still)
        return slope, low + (high - low) * still - self._usual[asked]

    def _explain_network(
        self,
        outcome: Outcome,
        facts: int,
        asked: NDArray[np.intp],
        rest: Resting,
    ) -> tuple[F64, F64]:
        moved = outcome.owner >= 0
        shares = self._network.shares(
            outcome.hidden, rest.hidden, outcome.index[moved], outcome.values[moved], asked
        )
        total = np.zeros((facts, len(asked)))
        np.add.at(total, outcome.owner[moved], shares)
        return total, rest.network[asked].astype(np.float64)


def _softmax(margins: F64) -> F64:
    power = np.exp(margins - margins.max())
    return np.asarray(power / power.sum())
