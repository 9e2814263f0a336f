"""The ensemble: from features to pooled margins, probabilities and the shares of each fact in them.

Responsible for the members at serving and their pool; the likelihood of the knowledge, boosted trees and
a neural net that add to it, and a random forest.  Parameters come from a model bundle.  What is shown of
it, and counterfactuals, are `differential` and `alternatives`.
"""

import math
from dataclasses import dataclass
from typing import Any

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
    primary_shift: float = 0.0


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
    boosted_step: NDArray[np.int32]
    forest_step: NDArray[np.int32]
    forest_share: F32


class Ensemble:
    """The members with their arrays prepared; immutable, shared by all calls of a process."""

    def __init__(self, arrays: Arrays, stack: Stack, places: Places, severity_mix: F64) -> None:
        self.stack = stack
        self.places = places
        self._likelihood = Likelihood.of(arrays)
        self._network = Network.of(arrays)
        self._boosted = Trees.of(arrays, "boosted")
        self._column = arrays["boosted.column"].astype(np.int32)
        self._value = arrays["boosted.value"].astype(np.float64)
        self._base = arrays["boosted.base"].astype(np.float64)
        self._forest = Trees.of(arrays, "forest")
        self._forest_first = int(arrays["forest.first"])
        self._forest_start = arrays["forest.start"].astype(np.int64)
        self._forest_column = arrays["forest.column"].astype(np.int32)
        self._forest_share = arrays["forest.share"].astype(np.float32)
        self._usual = arrays["forest.usual"].astype(np.float64)
        self._bias = np.array(stack.disease_bias)
        self._severity_bias = np.array(stack.severity_bias)
        self._mix = severity_mix
        self.count = len(self._bias)
        self.width = self.count + SEVERITY_COUNT + 1
        order = np.argsort(self._column, kind="stable")
        starts = np.searchsorted(self._column[order], np.arange(self.width + 1))
        # The trees of each output: the slices that explanations need.
        self._slices = [order[starts[c] : starts[c + 1]] for c in range(self.width)]
        self._boosted_feature = _feature_of_node(self._boosted)
        self._forest_feature = _feature_of_node(self._forest)
        self._features = len(self._boosted.starts) - 1

    @classmethod
    def of(cls, arrays: Arrays, stack: dict[str, Any], places: Places, severity_mix: F64) -> "Ensemble":
        """From the parts of a bundle; raises `msgspec.ValidationError` when the stack is not one."""
        return cls(arrays, msgspec.convert(stack, Stack), places, severity_mix)

    def run(self, features: Features, rules_logit: float) -> Outcome:
        """Margins and probabilities of one patient; `rules_logit` is what the published rules give."""
        stack, count = self.stack, self.count
        index = np.array(features.index, dtype=np.int32)
        values = np.array(features.values, dtype=np.float32)
        evidence = self._likelihood.read(features, self.places)
        likelihood = self._likelihood.margins(evidence)
        hidden = self._network.hidden(index, values)
        network = self._network.output(hidden)
        boosted_step = self._boosted.steps(index, values)
        leaves = self._boosted.leaves(boosted_step)
        boosted = self._base + np.bincount(self._column, self._value[leaves], minlength=self.width)
        forest_step = self._forest.steps(index, values)
        share = self._shares(self._forest.leaves(forest_step))
        floor = stack.forest_floor
        forest = np.log(share[:-1] + floor) - self._usual[:-1]
        one, two, three, four = stack.disease
        margins = (
            one * likelihood
            + two * boosted[:count]
            + three * network[:count]
            + four * forest[:count]
            + self._bias
        ).astype(np.float64)
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
        last = float(share[-1])
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
            boosted_step,
            forest_step,
            share,
        )

    def _shares(self, leaves: NDArray[np.int32]) -> F32:
        """Mean leaf distribution of the forest [C]."""
        leaf = leaves - self._forest_first
        entries, _ = _spans(self._forest_start, leaf)
        total = np.bincount(self._forest_column[entries], self._forest_share[entries], minlength=self.width)
        return np.asarray(total / len(leaves), dtype=np.float32)

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
        trees, tree_base = self._explain_boosted(
            outcome, facts, asked, by_feature, (still_index, still_values)
        )
        forest, forest_base = self._explain_forest(
            outcome, facts, asked, by_feature, (still_index, still_values)
        )
        net, net_base = self._explain_network(outcome, facts, asked, (still_index, still_values))
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

    def _explain_boosted(
        self,
        outcome: Outcome,
        facts: int,
        asked: NDArray[np.intp],
        owner: NDArray[np.int32],
        still: tuple[NDArray[np.int32], F32],
    ) -> tuple[F64, F64]:
        slices = [self._slices[column] for column in asked]
        numbers = np.concatenate(slices)
        which = np.repeat(np.arange(len(asked)), [len(part) for part in slices])
        without = self._boosted.steps(*still)
        found = reach(
            self._boosted,
            self._boosted.roots[numbers],
            outcome.boosted_step,
            without,
            owner[self._boosted_feature],
            facts,
        )
        values = np.zeros((len(found.leaf), len(asked)))
        values[np.arange(len(found.leaf)), which[found.tree]] = self._value[found.leaf]
        resting = self._value[self._boosted.leaves(without, numbers)]
        base = self._base[asked] + np.bincount(which, resting, minlength=len(asked))
        return found.shapley(values), base

    def _explain_forest(
        self,
        outcome: Outcome,
        facts: int,
        asked: NDArray[np.intp],
        owner: NDArray[np.int32],
        still: tuple[NDArray[np.int32], F32],
    ) -> tuple[F64, F64]:
        """Exact Shapley values of the shares; the logarithm's change is divided in their proportion."""
        without = self._forest.steps(*still)
        found = reach(
            self._forest,
            self._forest.roots,
            outcome.forest_step,
            without,
            owner[self._forest_feature],
            facts,
        )
        entries, leaf = _spans(self._forest_start, found.leaf - self._forest_first)
        place = np.full(self.width, -1, dtype=np.int64)
        place[asked] = np.arange(len(asked))
        column = place[self._forest_column[entries]]
        wanted = column >= 0
        values = np.zeros((len(found.leaf), len(asked)))
        values[leaf[wanted], column[wanted]] = self._forest_share[entries[wanted]]
        shares = found.shapley(values) / len(self._forest.roots)
        now = outcome.forest_share[asked].astype(np.float64)
        rest = self._shares(self._forest.leaves(without))[asked].astype(np.float64)
        floor = self.stack.forest_floor
        high, low = np.log(now + floor), np.log(rest + floor)
        if asked[-1] == self.width - 1:
            high[-1] -= math.log(1 - now[-1] + floor)
            low[-1] -= math.log(1 - rest[-1] + floor)
        change = now - rest
        slope = np.divide(high - low, change, out=np.zeros_like(change), where=np.abs(change) > 1e-9)
        # The rest of a change that shares do not explain (rounding) is none.
        base = low + (high - low) * (np.abs(change) <= 1e-9)
        return shares * slope, base - self._usual[asked]

    def _explain_network(
        self,
        outcome: Outcome,
        facts: int,
        asked: NDArray[np.intp],
        still: tuple[NDArray[np.int32], F32],
    ) -> tuple[F64, F64]:
        network = self._network
        resting = network.hidden(*still)
        moved = outcome.owner >= 0
        shares = network.shares(outcome.hidden, resting, outcome.index[moved], outcome.values[moved], asked)
        total = np.zeros((facts, len(asked)))
        np.add.at(total, outcome.owner[moved], shares)
        return total, network.output(resting)[asked].astype(np.float64)


def _feature_of_node(trees: Trees) -> NDArray[np.int32]:
    """The feature each node asks [N]; leaves are given the last one, which nobody asks of a leaf."""
    feature = np.full(len(trees.left), len(trees.starts) - 2, dtype=np.int32)
    lengths = np.diff(trees.starts)
    feature[: trees.starts[-1]] = np.repeat(np.arange(len(lengths)), lengths)
    return feature


def _spans(start: NDArray[np.int64], rows: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The entries of some rows of a sparse table, and for each the number of its row among them."""
    begins, ends = start[rows], start[rows + 1]
    lengths = ends - begins
    offsets = np.cumsum(lengths) - lengths
    entries = np.arange(lengths.sum()) + np.repeat(begins - offsets, lengths)
    return entries, np.repeat(np.arange(len(rows)), lengths)


def _softmax(margins: F64) -> F64:
    power = np.exp(margins - margins.max())
    return np.asarray(power / power.sum())
