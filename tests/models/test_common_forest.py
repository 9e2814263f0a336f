"""Trees as flat arrays: the leaf of every patient, and Shapley values equal to those of brute force."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.common.forest import Trees
from models.common.shapley import Baseline, Reached, reach

FEATURES = 9
Values = dict[int, float]


@dataclass(frozen=True)
class Node:
    """A naive tree: asks a feature, or is a leaf with a value."""

    value: float
    feature: int = -1
    threshold: float = 0.0
    zero_left: bool = True
    children: "tuple[Node, ...]" = ()

    def of(self, known: Values) -> float:
        """The value of the leaf of a patient of whom some features are known."""
        if not self.children:
            return self.value
        number = known.get(self.feature, 0.0)
        left = self.zero_left if number == 0 else number <= self.threshold
        return self.children[0 if left else 1].of(known)


def trees(depth: int) -> st.SearchStrategy[Node]:
    leaf = st.builds(Node, st.floats(-3, 3).map(lambda number: round(number, 3)))
    if depth == 0:
        return leaf
    inner = st.builds(
        Node,
        st.just(0.0),
        st.integers(0, FEATURES - 1),
        st.sampled_from([-1.5, -0.5, 0.5, 1.5]),
        st.booleans(),
        st.tuples(trees(depth - 1), trees(depth - 1)),
    )
    return st.one_of(leaf, inner, inner)


GROVES = st.lists(trees(4), min_size=1, max_size=4)
PATIENTS = st.dictionaries(st.integers(0, FEATURES - 1), st.sampled_from([-2.0, -1.0, 1.0, 2.0]))


def stored(
    grove: Sequence[Node], name: str, features: int = FEATURES
) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.float64]]:
    """Some trees as a bundle stores them under a name, and the value of every node."""
    nodes: list[Node] = []
    children: list[tuple[int, int]] = []
    roots = []

    def add(node: Node) -> int:
        number = len(nodes)
        nodes.append(node)
        children.append((number, number))
        if node.children:
            children[number] = (add(node.children[0]), add(node.children[1]))
        return number

    for tree in grove:
        roots.append(add(tree))
    asked = np.array([node.feature if node.children else features for node in nodes])
    order = np.argsort(asked, kind="stable")
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order))
    left, right = (place[[pair[side] for pair in children]][order].astype(np.int32) for side in (0, 1))
    zero_left = np.array([node.zero_left for node in nodes])[order]
    arrays: dict[str, NDArray[np.generic]] = {
        f"{name}.roots": place[roots],
        f"{name}.starts": np.searchsorted(asked[order], np.arange(features + 1)),
        f"{name}.threshold": np.array([node.threshold for node in nodes], dtype=np.float32)[order],
        f"{name}.left": left,
        f"{name}.right": right,
        f"{name}.zero_left": zero_left,
        f"{name}.depth": np.array(max(map(height, grove))),
    }
    return arrays, np.array([node.value for node in nodes])[order]


def planted(grove: Sequence[Node], features: int = FEATURES) -> tuple[Trees, NDArray[np.float64]]:
    """Some trees, and the value of every leaf."""
    arrays, value = stored(grove, "t", features)
    found, (place,) = Trees.of(arrays, ("t",))
    values = np.empty(len(value))
    values[place] = value
    return found, values[found.inner :]


def height(node: Node) -> int:
    return 1 + max(map(height, node.children)) if node.children else 0


def turned(found: Trees, known: Values) -> NDArray[np.bool_]:
    index = np.array(sorted(known), dtype=np.intp)
    values = np.array([known[i] for i in sorted(known)], dtype=np.float32)
    return found.turned(found.signed(index, values))


def ends(found: Trees, known: Values) -> NDArray[np.intp]:
    """The leaf of every tree, counted from the first leaf."""
    return found.walk(found.roots, turned(found, known), found.depth) - found.inner


def explained(found: Trees, known: Values, still: Values, owner: dict[int, int], players: int) -> Reached:
    of_feature = np.array([owner.get(i, -1) for i in range(found.features)], dtype=np.intp)
    rest = Baseline.of(found, turned(found, still))
    assert rest.leaf.tolist() == ends(found, still).tolist()
    return reach(found, [(0, len(found.roots))], turned(found, known), rest, of_feature, players)


def brute_force(
    grove: Sequence[Node], known: Values, still: Values, owner: dict[int, int], players: Sequence[int]
) -> dict[int, float]:
    """Shapley values by their definition, over all coalitions of the facts."""

    def value(coalition: frozenset[int]) -> float:
        seen = still | {i: known[i] for i in known if owner.get(i) in coalition}
        return math.fsum(tree.of(seen) for tree in grove)

    count = len(players)
    found = {}
    for player in players:
        others = [other for other in players if other != player]
        total = 0.0
        for size in range(count):
            share = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for coalition in itertools.combinations(others, size):
                before = frozenset(coalition)
                total += share * (value(before | {player}) - value(before))
        found[player] = total
    return found


@given(GROVES, PATIENTS)
def test_a_patient_ends_in_the_leaf_that_a_naive_walk_finds(grove: list[Node], known: Values) -> None:
    found, value = planted(grove)
    assert value[ends(found, known)].tolist() == [tree.of(known) for tree in grove]


@settings(max_examples=150, deadline=None)
@given(GROVES, PATIENTS, st.lists(st.integers(0, 4), min_size=FEATURES, max_size=FEATURES), st.integers(0, 2))
def test_shapley_values_are_those_of_brute_force(
    grove: list[Node], known: Values, owners: list[int], resting: int
) -> None:
    """Facts own one feature or several; the first features known may belong to no fact (the visit)."""
    no_fact = sorted(known)[:resting]
    owner = {i: owners[i] for i in range(FEATURES) if i not in no_fact}
    still = {i: known[i] for i in no_fact}
    found, value = planted(grove)
    reached = explained(found, known, still, owner, 5)
    amounts = reached.shapley(value[reached.leaf][:, None])[:, 0]
    expected = brute_force(grove, known, still, owner, range(5))
    assert amounts.tolist() == pytest.approx([expected[player] for player in range(5)], abs=1e-9)
    # They add up to what knowing the facts changes.
    change = sum(tree.of(known) - tree.of(still) for tree in grove)
    assert amounts.sum() == pytest.approx(change, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(GROVES, PATIENTS, st.permutations([3, 63, 64, 65, 127, 128, 129, 190, 0]))
def test_charts_of_more_than_64_facts_are_explained_as_exactly(
    grove: list[Node], known: Values, facts: list[int]
) -> None:
    owner = dict(enumerate(facts))
    found, value = planted(grove)
    reached = explained(found, known, {}, owner, 200)
    amounts = reached.shapley(value[reached.leaf][:, None])[:, 0]
    players = [owner[i] for i in sorted(known)]
    expected = brute_force(grove, known, {}, owner, players) if players else {}
    assert amounts.shape == (200,)
    assert {i: amounts[i] for i in players} == pytest.approx(expected, abs=1e-9)
    assert np.delete(amounts, players).tolist() == [0.0] * (200 - len(players))


def test_a_hundred_facts_of_a_hundred_stumps_get_what_each_changes() -> None:
    count = 100
    grove = [Node(0.0, i, 0.5, True, (Node(float(i)), Node(2.0 * i + 1))) for i in range(count)]
    found, value = planted(grove, count)
    known = dict.fromkeys(range(count), 1.0)
    reached = explained(found, known, {}, {i: i for i in range(count)}, count)
    amounts = reached.shapley(value[reached.leaf][:, None])[:, 0]
    assert amounts.tolist() == pytest.approx([i + 1.0 for i in range(count)])


def test_a_long_way_through_facts_is_divided_evenly() -> None:
    """Only who has all of forty facts reaches the leaf: each deserves a fortieth of it."""
    count = 40
    node = Node(1.0)
    for i in range(count):
        node = Node(0.0, i, 0.5, True, (Node(0.0), node))
    found, value = planted([node], count)
    known = dict.fromkeys(range(count), 1.0)
    reached = explained(found, known, {}, {i: i for i in range(count)}, count)
    amounts = reached.shapley(value[reached.leaf][:, None])[:, 0]
    assert amounts.tolist() == pytest.approx([1 / count] * count)


def test_several_outputs_are_explained_at_once() -> None:
    grove = [Node(0.0, 0, 0.5, True, (Node(1.0), Node(3.0)))]
    found, value = planted(grove)
    reached = explained(found, {0: 1.0}, {}, {0: 0}, 1)
    both = np.stack([value[reached.leaf], -2 * value[reached.leaf]], axis=1)
    assert reached.shapley(both).tolist() == [[2.0, -4.0]]


def test_a_chart_without_facts_has_nothing_to_explain() -> None:
    found, value = planted([Node(0.0, 0, 0.5, True, (Node(1.0), Node(3.0)))])
    reached = explained(found, {}, {}, {}, 0)
    assert reached.shapley(value[reached.leaf][:, None]).shape == (0, 1)
    assert value[reached.leaf].tolist() == [1.0]


@given(GROVES, GROVES, PATIENTS)
def test_trees_put_together_keep_what_each_of_them_says(
    one: list[Node], other: list[Node], known: Values
) -> None:
    first, value = stored(one, "one")
    second, others_value = stored(other, "other")
    both, (mine, theirs) = Trees.of(first | second, ("one", "other"))
    assert sorted([*mine.tolist(), *theirs.tolist()]) == list(range(len(value) + len(others_value)))
    values = np.empty(len(value) + len(others_value))
    values[mine], values[theirs] = value, others_value
    values = values[both.inner :]
    assert values[ends(both, known)].tolist() == [tree.of(known) for tree in (*one, *other)]
    others = values[ends(both, known)[len(one) :]]
    assert others.tolist() == [tree.of(known) for tree in other]


@given(GROVES, PATIENTS, st.lists(st.tuples(st.integers(0, FEATURES - 1), st.sampled_from([-2.0, 0.0, 2.0]))))
def test_nodes_flip_when_a_feature_is_otherwise(
    grove: list[Node], known: Values, changes: list[tuple[int, float]]
) -> None:
    """Each change is a way of its own; a value of 0 is that of a feature not known any more."""
    found, _ = planted(grove)
    before = turned(found, known)
    ways = np.arange(len(changes), dtype=np.intp)
    index = np.array([feature for feature, _ in changes], dtype=np.intp)
    own = np.array([known.get(feature, 0.0) for feature, _ in changes], dtype=np.float32)
    values = np.array([value for _, value in changes], dtype=np.float32)
    way, node = found.flipped(ways, index, own, values) if changes else (ways, ways)
    after = np.tile(before, (len(changes), 1))
    after[way, node] ^= True
    for number, (feature, value) in enumerate(changes):
        assert after[number].tolist() == turned(found, known | {feature: value}).tolist()
