"""From training objects to the flat arrays that serving reads; parity is tested to 1e-5.

Responsible for XGBoost's and scikit-learn's tree formats, turned into `models.common.forest.Trees`:
nodes numbered by the feature they ask, leaves last.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from training.ensemble.members import SEVERITY_COUNT, Boosted, Forest, Net

Arrays = dict[str, NDArray[np.generic]]


@dataclass
class _Nodes:
    """Trees being gathered: one entry a node, children as node numbers (a leaf's are itself)."""

    feature: list[NDArray[np.int64]]
    threshold: list[NDArray[np.float32]]
    left: list[NDArray[np.int64]]
    right: list[NDArray[np.int64]]
    zero_left: list[NDArray[np.bool_]]
    roots: list[int]
    count: int = 0
    depth: int = 0

    @classmethod
    def empty(cls) -> "_Nodes":
        return cls([], [], [], [], [], [])

    def add(
        self,
        feature: NDArray[np.int64],
        threshold: NDArray[np.float32],
        left: NDArray[np.int64],
        right: NDArray[np.int64],
        zero_left: NDArray[np.bool_],
    ) -> None:
        """One tree; children -1 at leaves."""
        leaf = left < 0
        own = np.arange(len(feature))
        self.roots.append(self.count)
        self.feature.append(np.where(leaf, np.iinfo(np.int64).max, feature))
        self.threshold.append(threshold)
        self.left.append(np.where(leaf, own, left) + self.count)
        self.right.append(np.where(leaf, own, right) + self.count)
        self.zero_left.append(zero_left)
        self.count += len(feature)
        self.depth = max(self.depth, _depth(left, right))

    def arrays(self, name: str, width: int) -> tuple[Arrays, NDArray[np.int64], int]:
        """The arrays, the new number of each node, and the number of the first leaf."""
        feature = np.concatenate(self.feature)
        order = np.argsort(feature, kind="stable")
        place = np.empty(self.count, dtype=np.int64)
        place[order] = np.arange(self.count)
        asked = feature[order]
        starts = np.searchsorted(asked, np.arange(width + 1))
        found: Arrays = {
            "roots": place[np.array(self.roots)].astype(np.int32),
            "starts": starts.astype(np.int32),
            "threshold": np.concatenate(self.threshold)[order],
            "left": place[np.concatenate(self.left)][order].astype(np.int32),
            "right": place[np.concatenate(self.right)][order].astype(np.int32),
            "zero_left": np.concatenate(self.zero_left)[order],
            "depth": np.array(self.depth),
        }
        return {f"{name}.{key}": value for key, value in found.items()}, place, int(starts[-1])


def _depth(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    level, nodes = 0, np.array([0])
    while True:
        nodes = nodes[left[nodes] >= 0]
        if not len(nodes):
            return level
        nodes = np.concatenate([left[nodes], right[nodes]])
        level += 1


def boosted_arrays(boosted: Boosted, classes: int, width: int) -> Arrays:
    """The three boosters as one set of trees under ``boosted.*``.

    `column` [T] says which output a tree adds to (diseases, severities, immediate), `value` [N] what a
    leaf adds, `base` [C] where each output starts.
    """
    nodes = _Nodes.empty()
    columns: list[int] = []
    values: list[NDArray[np.float32]] = []
    base = np.zeros(classes + SEVERITY_COUNT + 1, dtype=np.float32)
    parts = (
        (boosted.disease, 0, classes),
        (boosted.severity, classes, SEVERITY_COUNT),
        (boosted.immediate, classes + SEVERITY_COUNT, 1),
    )
    for booster, first, count in parts:
        model = json.loads(bytes(booster.save_raw("json")))["learner"]
        # A classifier of several classes adds 0.5 to every margin; a binary one starts at its logit, 0.
        base[first : first + count] = _base(booster, count)
        for number, tree in enumerate(model["gradient_booster"]["model"]["trees"]):
            values.append(_add_boosted(nodes, tree))
            columns.append(first + number % count)
    arrays, place, _ = nodes.arrays("boosted", width)
    value = np.zeros(nodes.count, dtype=np.float32)
    value[place] = np.concatenate(values)
    return arrays | {
        "boosted.column": np.array(columns, dtype=np.int32),
        "boosted.value": value,
        "boosted.base": base,
    }


def tree_arrays(booster: xgboost.Booster, name: str, width: int) -> Arrays:
    """A booster of one output, without its base score, under ``<name>.*``; `value` [N] what a leaf adds."""
    model = json.loads(bytes(booster.save_raw("json")))["learner"]
    nodes = _Nodes.empty()
    values = [_add_boosted(nodes, tree) for tree in model["gradient_booster"]["model"]["trees"]]
    arrays, place, _ = nodes.arrays(name, width)
    value = np.zeros(nodes.count, dtype=np.float32)
    value[place] = np.concatenate(values)
    return arrays | {f"{name}.value": value}


def _add_boosted(nodes: _Nodes, tree: dict[str, Any]) -> NDArray[np.float32]:
    """Add one tree of XGBoost's JSON; returns what its leaves add (0 elsewhere)."""
    left = np.array(tree["left_children"], dtype=np.int64)
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    nodes.add(
        np.array(tree["split_indices"], dtype=np.int64),
        np.nextafter(conditions, np.float32(-np.inf)),
        left,
        np.array(tree["right_children"], dtype=np.int64),
        np.array(tree["default_left"], dtype=bool),
    )
    return np.where(left < 0, conditions, 0).astype(np.float32)


def _base(booster: xgboost.Booster, count: int) -> NDArray[np.float32]:
    """The margin of no tree at all, asked of the booster itself."""
    empty = booster[0:0] if booster.num_boosted_rounds() == 0 else None
    if empty is not None:
        return np.zeros(count, dtype=np.float32)
    score = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    found = np.array(json.loads(score) if score.startswith("[") else [float(score)], dtype=np.float64)
    if count == 1:
        found = np.log(found / (1 - found))
    return np.broadcast_to(found, (count,)).astype(np.float32)


def forest_arrays(forest: Forest, width: int) -> Arrays:
    """The forest under ``forest.*``: leaf L holds the classes ``column[start[L]:start[L + 1]]``.

    Leaves are counted from the first leaf node `first`; the columns are diseases, severities, immediate.
    `usual` [C] is what is subtracted from the logarithm of a share.
    """
    nodes = _Nodes.empty()
    distributions: list[NDArray[np.float64]] = []
    for estimator, extra in zip(forest.model.estimators_, forest.extra, strict=True):
        tree = estimator.tree_
        threshold = tree.threshold.astype(np.float32)
        # The largest single-precision number that is not above the double-precision threshold.
        over = threshold.astype(np.float64) > tree.threshold
        threshold[over] = np.nextafter(threshold[over], np.float32(-np.inf))
        left = tree.children_left.astype(np.int64)
        nodes.add(
            np.maximum(tree.feature, 0).astype(np.int64),
            threshold,
            left,
            tree.children_right.astype(np.int64),
            tree.threshold >= 0,
        )
        share = tree.value[:, 0, :]
        share = share / share.sum(axis=1, keepdims=True)
        full = np.zeros((len(left), forest.classes + SEVERITY_COUNT + 1))
        full[:, forest.columns] = share
        full[:, forest.classes :] = extra
        full[left >= 0] = 0
        distributions.append(full)
    arrays, place, first = nodes.arrays("forest", width)
    table = np.zeros((nodes.count - first, forest.classes + SEVERITY_COUNT + 1), dtype=np.float32)
    whole = np.concatenate(distributions)
    leaf = place >= first
    table[place[leaf] - first] = whole[leaf]
    rows, columns = np.nonzero(table)
    start = np.searchsorted(rows, np.arange(len(table) + 1))
    return arrays | {
        "forest.first": np.array(first),
        "forest.start": start.astype(np.int32),
        "forest.column": columns.astype(np.uint16),
        "forest.share": table[rows, columns],
        "forest.usual": np.concatenate([forest.usual, np.zeros(SEVERITY_COUNT + 1, dtype=np.float32)]),
    }


def network_arrays(net: Net) -> Arrays:
    """The net under ``network.*``."""
    return {f"network.{name}": getattr(net, name).astype(np.float32) for name in ("w1", "b1", "w2", "b2")}
