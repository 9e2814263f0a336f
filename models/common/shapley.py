"""Exact Shapley values of trees against a baseline: which facts of the chart moved what they say.

The game is "which facts of the chart are known": a player is one fact with all its features, a coalition
sees those facts and the baseline otherwise.  For one baseline the value of a tree decomposes over its
leaves, and the share of a fact in a leaf has a closed form (interventional SHAP: Lundberg et al. 2020,
Nat Mach Intell 2:56-67; Janzing et al. 2020), so no sampling is needed.

The way to a leaf leaves the baseline's at some nodes, the last of which is the leaf's own: every other
leaf than the baseline's belongs to exactly one node.  Some coalition reaches it when the chart moves all
of them.  So the nodes that a chart moves are looked through instead of walking the trees.
"""

from dataclasses import dataclass
from math import factorial

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.common.forest import Flags, Places, Trees

F64 = NDArray[np.float64]
_LONGEST = 64


def _shares() -> F64:
    """Shares of a leaf's value for a fact it needs, and for one it must not see [2, a * `_LONGEST` + b].

    It needs a facts, and b are unwanted.
    """
    needs, spoils = np.zeros((_LONGEST, _LONGEST)), np.zeros((_LONGEST, _LONGEST))
    for a in range(_LONGEST):
        for b in range(_LONGEST - a):
            total = factorial(a + b)
            if a:
                needs[a, b] = factorial(a - 1) * factorial(b) / total
            if b:
                spoils[a, b] = factorial(a) * factorial(b - 1) / total
    return np.stack([needs.ravel(), -spoils.ravel()])


_SHARES = _shares()


@dataclass(frozen=True)
class Baseline:
    """A resting state of some trees.

    Attributes:
        turned: `Trees.turned` [I + 1].
        leaf: where it ends in each tree [T], counted from the first leaf.
        beyond: the leaf that belongs to each inner node [I]: where the way goes on as the baseline does
            once it has left it at that node.
        above: the node where the way to each inner node left the baseline's last [I + 1], I for none.
    """

    turned: Flags
    leaf: Places
    beyond: Places
    above: Places

    @classmethod
    def of(cls, trees: Trees, turned: Flags) -> "Baseline":
        """The baseline in which some nodes are turned."""
        paths, inner = trees.paths, trees.inner
        leaves, depth = paths.shape
        # Of the way to each leaf: before each step, and at its end, where it left the baseline's last.
        last = np.zeros((leaves, depth + 1), dtype=np.intp)
        apart = (paths < inner) & (trees.turns != turned[paths])
        last[:, 1:] = np.maximum.accumulate(np.where(apart, np.arange(1, depth + 1), 0), axis=1)
        nodes = np.take_along_axis(np.hstack([np.full((leaves, 1), inner), paths]), last, axis=1)
        above = np.full(inner + 1, inner)
        above[paths] = nodes[:, :-1]
        above[inner] = inner
        beyond = np.zeros(inner + 1, dtype=np.intp)
        beyond[nodes[:, -1]] = np.arange(leaves)
        return cls(turned, (nodes[:, -1] == inner).nonzero()[0], beyond[:-1], above)


class Reached(msgspec.Struct, frozen=True, gc=False):
    """Leaves that coalitions of facts reach, and what each asks of the facts.

    Attributes:
        leaf: [M], counted from the first leaf.
        sets: [2, M, P], 1 for the facts that must be seen, and for those that must not.
    """

    leaf: Places
    sets: F64

    def shapley(self, values: F64) -> F64:
        """Shapley values [P, C] of leaf values [M, C]; they sum to ``f(x) - f(baseline)``."""
        _, count, facts = self.sets.shape
        sizes = (self.sets @ np.ones(facts)).astype(np.intp)
        shares = _SHARES.take(sizes[0] * _LONGEST + sizes[1], axis=1)
        # Nothing reaches a leaf that asks for a fact and for its absence.
        shares *= np.einsum("mp,mp->m", *self.sets) == 0
        weighed = shares[:, :, None] * values
        return np.asarray(self.sets.reshape(2 * count, facts).T @ weighed.reshape(2 * count, -1))


def reach(
    trees: Trees, wanted: list[tuple[int, int]], turned: Flags, rest: Baseline, owner: Places, facts: int
) -> Reached:
    """All leaves that coalitions of facts reach in some of the trees.

    Args:
        trees: all of them.
        wanted: ranges of trees, from ... to.
        turned: `Trees.turned` of the chart.
        rest: what is known when no fact is.
        owner: the fact that owns each feature [F], -1 for none (there chart and baseline agree).
        facts: number of facts P.
    """
    moved = turned != rest.turned
    bounds = [(int(trees.nodes[a]), int(trees.nodes[b])) for a, b in wanted]
    node = above = np.concatenate([trees.numbers[a:b][moved[a:b]] for a, b in bounds])
    inner = trees.inner
    # For now "no node" counts as moved: it ends the way up, and stays its own end.
    moved[inner] = True
    while len(above):
        above = rest.above.take(above)
        stays = moved.take(above)
        node, above = node[stays], above[stays]
        if not len(above) or np.minimum.reduce(above) == inner:
            break
    moved[inner] = False
    leaves = np.concatenate([*[rest.leaf[a:b] for a, b in wanted], rest.beyond.take(node)])
    # One entry for every moved node on the way to one of the leaves.
    paths = trees.paths.take(leaves, axis=0).ravel()
    entry = moved.take(paths).nonzero()[0]
    node = paths.take(entry)
    fact = owner.take(trees.asks.take(node), mode="wrap")
    spoils = trees.turns.take(leaves, axis=0).ravel().take(entry) == rest.turned.take(node)
    count = len(leaves)
    sets = np.zeros((2, count, facts))
    sets.ravel()[(spoils * count + entry // trees.depth) * facts + fact] = 1.0
    return Reached(leaves, sets)
