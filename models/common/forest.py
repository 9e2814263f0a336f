"""Decision trees as flat arrays: where a patient ends in each of them, all at once.

Serves boosted trees and random forests alike.  A node sends ``value <= threshold`` to the left, and a
value of exactly 0 (nothing known) the way `zero_left` says.  Which vectors the leaves hold is the
caller's business, explaining is `shapley`'s.  Training formats are converted in `training.export`.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Flags = NDArray[np.bool_]
# The type numpy indexes with: any other it would turn into this one at every call.
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Trees:
    """T trees over N nodes: I inner ones, then L leaves, both tree by tree.

    Every question is put as one: a node is *turned* when ``signed[asks] > threshold``, where `signed`
    holds each of F features twice, as it is and negated, and minus infinity where nothing is known.  So
    a feature that nobody knows turns no node, whichever way that sends the unknown, and all nodes are
    asked in one comparison.

    Attributes:
        roots: [T].
        asks, threshold: of the inner nodes [I]; ``asks % F`` is the feature.
        onward: [2 N], ``onward[2 n]`` follows node n when it is still, ``onward[2 n + 1]`` when turned.
            Leaves follow themselves.  Half as wide as an index: walking waits for memory.
        nodes: the first inner node of each tree, and I [T + 1].
        leaves: the first leaf of each tree, and L [T + 1]; in a tree from still to turned.
        tree: the tree of each inner node [I].
        numbers: those of the inner nodes, in order [I].
        below: [2, I], the leaves below each inner node are those from ``below[0]`` to before ``below[1]``.
        paths: the inner nodes on the way to each leaf [L, depth], I where there are no more.
        turns: whether that way follows the turned node [L, depth].
        asking: the inner nodes with each value of `asks` by rising threshold, 2 F arrays.
        limits: their thresholds.
    """

    roots: Places
    asks: Places
    threshold: F32
    onward: NDArray[np.int32]
    nodes: Places
    leaves: Places
    tree: Places
    numbers: Places
    below: Places
    paths: Places
    turns: Flags
    asking: tuple[Places, ...]
    limits: "tuple[array[float], ...]"

    @property
    def features(self) -> int:
        """F."""
        return len(self.asking) // 2

    @property
    def inner(self) -> int:
        """I, which is also the number of the first leaf."""
        return len(self.asks)

    @property
    def depth(self) -> int:
        """Steps after which every tree is at a leaf."""
        return int(self.paths.shape[1])

    @classmethod
    def of(
        cls, arrays: dict[str, NDArray[np.generic]], names: Sequence[str]
    ) -> tuple["Trees", tuple[Places, ...]]:
        """The trees stored under each ``<name>.*`` put together, and the new number of each stored node.

        Asking them together costs little more than asking the largest set alone.
        """
        left, right, roots, feature, zero_left, threshold, sizes = _stored(arrays, names)
        features = len(arrays[f"{names[0]}.starts"]) - 1
        depth = max(int(arrays[f"{name}.depth"]) for name in names)
        found = _Levels(roots, np.where(zero_left, left, right), np.where(zero_left, right, left), depth)
        inner, order = found.inner, np.argsort(found.leaf_keys, kind="stable")
        every = np.arange(len(roots) + 1) << depth
        leaves, keys = found.leaves[order], found.leaf_keys[order]
        nodes = np.concatenate([inner, leaves])
        # Nodes that no tree reaches have no place; nothing asks for theirs.
        place = np.zeros(len(left) + 1, dtype=np.intp)
        place[nodes] = np.arange(len(nodes))
        place[-1] = len(inner)
        # Turned is "to the right" where the unknown goes left, and else "to the left":
        # value <= threshold is -value > the next number below -threshold.
        rising, asked = zero_left[inner], feature[inner]
        asks = np.where(rising, asked, asked + features)
        below = np.nextafter(-threshold[inner], np.float32(-np.inf))
        limit = np.where(rising, threshold[inner], below).astype(np.float32)
        asking = _grouped(asks, limit, 2 * features)
        trees = cls(
            roots=place[roots],
            asks=asks,
            threshold=limit,
            onward=place[np.stack([found.still[nodes], found.other[nodes]], axis=1).ravel()].astype(np.int32),
            nodes=np.searchsorted(found.keys >> depth, np.arange(len(roots) + 1)),
            leaves=np.searchsorted(keys, every),
            tree=found.keys >> depth,
            numbers=np.arange(len(inner)),
            below=np.searchsorted(keys, [found.keys, found.keys + (1 << depth - found.levels)]),
            paths=place[found.paths[order]],
            turns=(keys[:, None] >> np.arange(depth - 1, -1, -1) & 1).astype(np.bool_),
            asking=asking,
            limits=tuple([array("f", limit[nodes].tobytes()) for nodes in asking]),
        )
        return trees, tuple(np.split(place[:-1], np.cumsum(sizes)[:-1]))

    def signed(self, index: Places, values: F32) -> F32:
        """A patient of whom some features are known, as nodes ask [2 F]; a value of 0 is unknown."""
        features = self.features
        found = np.full(2 * features, -np.inf, dtype=np.float32)
        if not values.all():
            index, values = index[values != 0], values[values != 0]
        found[index] = values
        found[index + features] = -values
        return found

    def turned(self, signed: F32) -> Flags:
        """Which inner nodes are turned [I + 1]; the last, never turned, stands for "no node"."""
        found = np.zeros(len(self.asks) + 1, dtype=np.bool_)
        np.greater(signed.take(self.asks, mode="wrap"), self.threshold, out=found[:-1])
        return found

    def flipped(self, ways: Places, index: Places, before: F32, after: F32) -> tuple[Places, Places]:
        """The inner nodes that are turned otherwise when some features are otherwise: their ways and numbers.

        Args:
            ways: which way of being otherwise each of the features belongs to.
            index: the features.
            before, after: their values now and then; 0 for one that is not known.
        """
        nodes: list[Places] = []
        lengths: list[int] = []
        for place, now, then in zip(index.tolist(), before.tolist(), after.tolist(), strict=True):
            for at, one, other in ((place, now, then), (place + self.features, -now, -then)):
                # Turned are those whose threshold is lower, which are the first ones.
                limits = self.limits[at]
                low = bisect_left(limits, one) if one else 0
                high = bisect_left(limits, other) if other else 0
                found = self.asking[at][low:high] if low < high else self.asking[at][high:low]
                nodes.append(found)
                lengths.append(len(found))
        return ways.repeat(2).repeat(lengths), np.concatenate(nodes)

    def walk(self, nodes: Places, turned: Flags, steps: int, offset: Places | None = None) -> Places:
        """The nodes that some come to after a number of steps.

        `turned` may hold the flags of several patients one after the other; `offset` is where those of
        each node's patient begin.
        """
        inner = self.inner
        for _ in range(steps):
            # Leaves ask for "no node", which is never turned, and stay where they are.
            if offset is None:
                step = turned.take(nodes, mode="clip")
            else:
                step = turned.take(np.minimum(nodes, inner) + offset)
            nodes = self.onward.take(nodes + nodes + step).astype(np.intp)
        return nodes


def _stored(
    arrays: dict[str, NDArray[np.generic]], names: Sequence[str]
) -> tuple[Places, Places, Places, Places, Flags, F32, list[int]]:
    """What is stored of each set of trees, one after the other, nodes numbered through; and their sizes.

    Stored nodes are sorted by the feature they ask, leaves last.
    """
    parts: list[tuple[NDArray[np.generic], ...]] = []
    sizes: list[int] = []
    first = 0
    for name in names:
        left, right, roots, starts = (
            arrays[f"{name}.{key}"].astype(np.intp) for key in ("left", "right", "roots", "starts")
        )
        feature = np.full(len(left), len(starts) - 1, dtype=np.intp)
        feature[: starts[-1]] = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        rest = (arrays[f"{name}.zero_left"].astype(np.bool_), arrays[f"{name}.threshold"].astype(np.float32))
        parts.append((left + first, right + first, roots + first, feature, *rest))
        sizes.append(len(left))
        first += len(left)
    one, two, three, four, five, six = (np.concatenate(part) for part in zip(*parts, strict=True))
    return one, two, three, four, five, six, sizes


def _grouped(asks: Places, limit: F32, count: int) -> tuple[Places, ...]:
    """The inner nodes with each value of `asks`, by rising threshold."""
    order = np.lexsort((limit, asks))
    return tuple(np.split(order, np.searchsorted(asks[order], np.arange(1, count))))


class _Levels:
    """Trees taken apart level by level.

    A key holds the tree in its upper bits and, in `depth` lower ones, at which levels the way to a node
    is the turned one.
    """

    def __init__(self, roots: Places, still: Places, other: Places, depth: int) -> None:
        self.still, self.other = still, other
        inner: list[Places] = []
        keys: list[Places] = []
        leaves: list[tuple[Places, Places, Places]] = []
        nodes, key = roots, np.arange(len(roots), dtype=np.intp) << depth
        path = np.full((len(roots), depth), -1, dtype=np.intp)
        for level in range(depth + 1):
            ends = still[nodes] == nodes
            leaves.append((nodes[ends], key[ends], path[ends]))
            nodes, key, path = nodes[~ends], key[~ends], path[~ends]
            inner.append(nodes)
            keys.append(key)
            if level < depth:
                path[:, level] = nodes
            path = np.repeat(path, 2, axis=0)
            key = np.stack([key, key | 1 << max(depth - 1 - level, 0)], axis=1).ravel()
            nodes = np.stack([still[nodes], other[nodes]], axis=1).ravel()
        key = np.concatenate(keys)
        order = np.argsort(key >> depth, kind="stable")
        self.inner, self.keys = np.concatenate(inner)[order], key[order]
        self.levels = np.repeat(np.arange(len(inner)), [len(part) for part in inner])[order]
        self.leaves, self.leaf_keys, self.paths = (np.concatenate(part) for part in zip(*leaves, strict=True))
