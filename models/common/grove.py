"""The two members that are trees, boosted ones and a random forest, asked together.

Responsible for what their leaves hold: a boosted tree adds to one output, a leaf of the forest is a
distribution over all of them.  Outputs are the diseases, the severity classes and immediate attention.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.common.forest import F32, Flags, Places, Trees
from models.common.members import Arrays
from models.common.shapley import Baseline, reach

F64 = NDArray[np.float64]


class Grown(msgspec.Struct, frozen=True, gc=False):
    """What the trees say of one patient.

    `boosted` [C] are the margins of the boosted trees, `share` [C] is the mean of the forest's leaves;
    `turned` [I + 1] and `leaf` [T] are of `Trees`.
    """

    boosted: F64
    share: F32
    turned: Flags
    leaf: Places


class Grove:
    """Boosted trees and forest over one numbering of nodes, C outputs; immutable."""

    def __init__(self, arrays: Arrays) -> None:
        column = arrays["boosted.column"].astype(np.intp)
        order = np.argsort(column, kind="stable")
        # Trees of one output stand together, so that those of a few outputs are a few ranges.
        together = arrays | {"boosted.roots": arrays["boosted.roots"][order]}
        self.trees, (boosted, forest) = Trees.of(together, ("boosted", "forest"))
        trees, inner = self.trees, self.trees.inner
        self._base = arrays["boosted.base"].astype(np.float64)
        self.width = len(self._base)
        self._column = column[order]
        self._ends = np.searchsorted(self._column, np.arange(self.width + 1)).tolist()
        self._boosted, self._forest = len(column), len(trees.roots) - len(column)
        self._depth = int(arrays["boosted.depth"])
        # What a leaf of a boosted tree adds, and to which output; theirs are the first leaves.
        value = np.zeros(inner + len(trees.paths))
        value[boosted] = arrays["boosted.value"]
        self._value = value[inner:]
        self._output = np.repeat(self._column, np.diff(trees.leaves[: self._boosted + 1]))
        # The distributions of the forest's leaves, dense, and the row of each leaf.
        start = arrays["forest.start"].astype(np.intp)
        rows = np.repeat(np.arange(len(start) - 1), np.diff(start))
        self._share = np.zeros((len(start) - 1, self.width), dtype=np.float32)
        self._share[rows, arrays["forest.column"].astype(np.intp)] = arrays["forest.share"]
        row = np.zeros(inner + len(trees.paths), dtype=np.intp)
        row[forest[int(arrays["forest.first"]) :]] = np.arange(len(start) - 1)
        self._row = row[inner:]

    def grow(self, index: Places, values: F32) -> Grown:
        """What the trees say of a patient of whom some features are known."""
        trees, count = self.trees, self._boosted
        turned = trees.turned(trees.signed(index, values))
        nodes = trees.walk(trees.roots, turned, self._depth)
        # Only the forest is deeper.
        deep = trees.walk(nodes[count:], turned, trees.depth - self._depth)
        leaf = np.concatenate([nodes[:count], deep]) - trees.inner
        value = self._value.take(leaf[:count])
        boosted = self._base + np.bincount(self._column, value, minlength=self.width)
        return Grown(boosted, self._mean(leaf[count:]), turned, leaf)

    def _mean(self, leaves: Places) -> F32:
        """The mean distribution of leaves of the forest [..., trees], [..., C]."""
        share = np.add.reduce(self._share.take(self._row.take(leaves), axis=0), axis=-2)
        share /= np.float32(self._forest)
        return np.asarray(share)

    def otherwise(
        self, grown: Grown, count: int, ways: Places, index: Places, before: F32, after: F32
    ) -> tuple[F64, F32]:
        """Margins and shares [count, C] of the same patient with some features otherwise, in several ways.

        `ways` says to which of them each feature belongs; a value of 0 is that of one that is not known.
        Only trees whose way passes a node that turns are walked again.
        """
        trees = self.trees
        way, node = trees.flipped(ways, index, before, after)
        flags, size = np.concatenate([grown.turned] * count), trees.inner + 1
        flags[way * size + node] ^= True
        tree = trees.tree.take(node)
        at = grown.leaf.take(tree)
        passed = trees.below[0].take(node) <= at
        passed &= at < trees.below[1].take(node)
        every = len(trees.roots)
        touched = np.zeros(count * every, dtype=np.bool_)
        touched[(way * every + tree)[passed]] = True
        place = touched.nonzero()[0]
        way = place // every
        tree = place - way * every
        offset = way * size
        nodes = trees.walk(trees.roots.take(tree), flags, self._depth, offset)
        deep = (tree >= self._boosted).nonzero()[0]
        nodes[deep] = trees.walk(nodes[deep], flags, trees.depth - self._depth, offset[deep])
        leaf = grown.leaf[self._boosted :][None].repeat(count, axis=0)
        leaf[way[deep], tree[deep] - self._boosted] = nodes[deep] - trees.inner
        # Leaves of the forest hold no value.
        added = self._value.take(nodes - trees.inner) - self._value.take(grown.leaf.take(tree))
        place = way * self.width + self._column.take(tree, mode="clip")
        boosted = np.bincount(place, added, minlength=count * self.width).reshape(count, self.width)
        return grown.boosted + boosted, self._mean(leaf)

    def explain(
        self,
        grown: Grown,
        rest: Baseline,
        asked: Places,
        owner: Places,
        weights: tuple[F64, F64],
        facts: int,
    ) -> F64:
        """Exact Shapley values [facts, asked] of some outputs, boosted trees and forest weighed and added.

        Args:
            grown: the chart.
            rest: what is known when no fact is.
            asked: outputs.
            owner: the fact that owns each feature [F], -1 for none.
            weights: of the boosted trees, and of the share of the forest, in each of `asked`.
            facts: how many there are.
        """
        trees, count = self.trees, self._boosted
        wanted = [(self._ends[column], self._ends[column + 1]) for column in asked.tolist()]
        # The forest stands behind the trees of immediate attention: with them it is one range.
        first = wanted.pop()[0] if wanted and wanted[-1][1] == count else count
        found = reach(trees, [*wanted, (first, len(trees.roots))], grown.turned, rest, owner, facts)
        boosted = found.leaf < len(self._output)
        add, spread = boosted.nonzero()[0], (~boosted).nonzero()[0]
        leaf = found.leaf.take(add)
        # Numbers of outputs, each beside the weight of its place among those asked.
        every = (self._output.take(leaf)[:, None] == asked) * weights[0]
        values = np.zeros((len(found.leaf), len(asked)))
        values[add] = self._value.take(leaf)[:, None] * every
        rows = self._row.take(found.leaf.take(spread))
        values[spread] = self._share.take(rows[:, None] * self.width + asked) * (weights[1] / self._forest)
        return found.shapley(values)
