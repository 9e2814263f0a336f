"""Decision trees as flat arrays: where a patient ends in each, and exact Shapley values against a baseline.

Serves boosted trees and random forests alike.  A node sends ``value <= threshold`` to the left, and a
value of exactly 0 (nothing known) the way `zero_left` says.  Which vectors the leaves hold is the
caller's business.  Training formats are converted in `training.export`.

The Shapley values are of the game "which facts of the chart are known": a player is one fact with all
its features, a coalition sees those facts and the baseline otherwise.  For one baseline the value of a
tree decomposes over its leaves, and the share of a fact in a leaf has a closed form (interventional
SHAP: Lundberg et al. 2020, Nat Mach Intell 2:56-67; Janzing et al. 2020), so no sampling is needed.
"""

from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]
_LONGEST = 64


def _shares() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of a leaf's value: for a fact it needs (with a such, b unwanted), and one it must not see."""
    needs, spoils = np.zeros((_LONGEST, _LONGEST)), np.zeros((_LONGEST, _LONGEST))
    for a in range(_LONGEST):
        for b in range(_LONGEST - a):
            total = factorial(a + b)
            if a:
                needs[a, b] = factorial(a - 1) * factorial(b) / total
            if b:
                spoils[a, b] = factorial(a) * factorial(b - 1) / total
    return needs, spoils


_NEEDS, _SPOILS = _shares()


@dataclass(frozen=True)
class Trees:
    """T trees over N nodes.  A leaf's children are itself; `roots` [T], all others [N].

    Nodes are numbered by the feature they ask (leaves last): those of feature f are
    ``starts[f]:starts[f + 1]``, so that only what a chart speaks of is compared.
    """

    roots: I32
    starts: I32
    threshold: F32
    left: I32
    right: I32
    still: I32
    depth: int

    @classmethod
    def of(cls, arrays: dict[str, NDArray[np.generic]], name: str) -> "Trees":
        """The trees stored under ``<name>.*``."""

        def get(field: str) -> NDArray[np.generic]:
            return arrays[f"{name}.{field}"]

        left, right = get("left").astype(np.int32), get("right").astype(np.int32)
        return cls(
            get("roots").astype(np.int32),
            get("starts").astype(np.int32),
            get("threshold").astype(np.float32),
            left,
            right,
            np.where(get("zero_left").astype(bool), left, right).astype(np.int32),
            int(get("depth")),
        )

    def with_others(self, others: "Trees") -> tuple["Trees", I32, I32]:
        """Both sets of trees over one numbering of nodes, and the new number of each of their nodes.

        Walking them together costs little more than walking the larger set alone.
        """
        features = len(self.starts) - 1
        asked = np.concatenate([_asked(self, features), _asked(others, features)])
        order = np.argsort(asked, kind="stable")
        place = np.empty(len(order), dtype=np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        mine, theirs = place[: len(self.left)], place[len(self.left) :]

        def joined(one: I32, other: I32) -> I32:
            return np.concatenate([mine[one], theirs[other]])[order]

        both = Trees(
            np.concatenate([mine[self.roots], theirs[others.roots]]),
            np.searchsorted(asked[order], np.arange(features + 1)).astype(np.int32),
            np.concatenate([self.threshold, others.threshold])[order],
            joined(self.left, others.left),
            joined(self.right, others.right),
            joined(self.still, others.still),
            max(self.depth, others.depth),
        )
        return both, mine, theirs

    def steps(self, index: I32, values: F32) -> I32:
        """Where each node sends a patient [N] of whom only the features `index` are known."""
        return self.turned(self.still, index, values)

    def turned(self, step: I32, index: I32, values: F32) -> I32:
        """The same steps with some features otherwise; a value of 0 makes one unknown."""
        step = step.copy()
        begins, ends = self.starts[index], self.starts[index + 1]
        lengths = ends - begins
        # The node numbers of all features known: runs begin at `begins` and are `lengths` long.
        offsets = np.cumsum(lengths) - lengths
        touched = np.arange(lengths.sum()) + np.repeat(begins - offsets, lengths)
        value = np.repeat(values, lengths)
        turned = np.where(value <= self.threshold[touched], self.left[touched], self.right[touched])
        if not values.all():
            turned = np.where(value == 0, self.still[touched], turned)
        step[touched] = turned
        return step

    def leaves(self, step: I32, roots: I32 | None = None, depth: int | None = None) -> I32:
        """The leaf of each tree [T], or of the trees with some roots (and a lesser depth)."""
        node = self.roots if roots is None else roots
        for _ in range(self.depth if depth is None else depth):
            node = step[node]
        return node


def _asked(trees: Trees, leaf: int) -> I32:
    """The feature each node asks [N]; `leaf` for leaves."""
    asked = np.full(len(trees.left), leaf, dtype=np.int32)
    asked[: trees.starts[-1]] = np.repeat(np.arange(leaf, dtype=np.int32), np.diff(trees.starts))
    return asked


@dataclass(frozen=True)
class Reached:
    """The leaves that some coalition of facts reaches, and what each asks of the facts.

    `leaf` [M] node numbers, `tree` [M] which tree, `needs`/`spoils` [M, words]: facts that must be seen
    and facts that must not, a bit for each of `players` facts.
    """

    leaf: I32
    tree: I32
    needs: U64
    spoils: U64
    players: int

    def shapley(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shapley values [P, C] of leaf values [M, C]; they sum to ``f(x) - f(baseline)``."""
        a = np.bitwise_count(self.needs).sum(axis=1, dtype=np.intp)
        b = np.bitwise_count(self.spoils).sum(axis=1, dtype=np.intp)
        plus = values * _NEEDS[a, b][:, None]
        minus = values * _SPOILS[a, b][:, None]
        return np.asarray(self._bits(self.needs).T @ plus - self._bits(self.spoils).T @ minus)

    def _bits(self, words: U64) -> NDArray[np.float64]:
        bytes_ = words.astype("<u8").view(np.uint8)
        bits = np.unpackbits(bytes_, axis=1, count=self.players, bitorder="little")
        return bits.astype(np.float64)


def reach(roots: I32, with_facts: I32, without: I32, feature: I32, owner: I32, players: int) -> Reached:
    """All leaves that coalitions of facts reach in some of the trees.

    Args:
        roots: the trees asked.
        with_facts, without: `Trees.steps` of the chart and of the baseline [N].
        feature: the feature each node asks [N].
        owner: the fact that owns each feature [F], -1 for none (there both steps agree).
        players: number of facts P.
    """
    # A few hundred leaves of a few steps each: plain integers walk them faster than arrays would.
    seen_at, unseen_at, feature_at, owner_at = with_facts.data, without.data, feature.data, owner.data
    leaves: list[int] = []
    tree: list[int] = []
    needs: list[int] = []
    spoils: list[int] = []
    waiting: list[tuple[int, int, int]] = []
    for number, root in enumerate(roots.tolist()):
        waiting.append((root, 0, 0))
        while waiting:
            node, asked, barred = waiting.pop()
            while True:
                seen, unseen = seen_at[node], unseen_at[node]
                if seen == unseen:
                    if seen == node:
                        break
                    node = seen
                    continue
                fact = 1 << owner_at[feature_at[node]]
                # A fact already asked for is seen, one already excluded is not; another divides the way.
                if barred & fact:
                    node = unseen
                    continue
                if not asked & fact:
                    waiting.append((unseen, asked, barred | fact))
                    asked |= fact
                node = seen
            leaves.append(node)
            tree.append(number)
            needs.append(asked)
            spoils.append(barred)
    return Reached(
        np.array(leaves, dtype=np.int32),
        np.array(tree, dtype=np.int32),
        _words(needs, players),
        _words(spoils, players),
        players,
    )


def _words(sets: list[int], players: int) -> U64:
    """Sets of facts as words of 64 bits [M, words]."""
    words = max(1, (players + 63) // 64)
    if words == 1:
        return np.array(sets, dtype=np.uint64)[:, None]
    data = b"".join([each.to_bytes(8 * words, "little") for each in sets])
    return np.frombuffer(data, dtype="<u8").reshape(len(sets), words).astype(np.uint64)
