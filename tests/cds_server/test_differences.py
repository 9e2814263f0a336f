"""Differences are named by their place; equal documents have none."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cds_server.decisions.differences import Difference, differences, without_values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def between(old: Any, new: Any) -> tuple[Difference, ...]:
    return differences(msgspec.json.encode(old), msgspec.json.encode(new))


@given(JSON, JSON)
def test_there_are_differences_exactly_when_the_bytes_differ(old: Any, new: Any) -> None:
    assert bool(between(old, new)) == (msgspec.json.encode(old) != msgspec.json.encode(new))


def test_places_are_named_and_values_only_on_demand() -> None:
    found = between(
        {"cards": [{"summary": "a", "links": []}, {"summary": "b"}]},
        {"cards": [{"summary": "x", "uuid": "1"}]},
    )
    assert [(one.path, one.change) for one in found] == [
        ("cards[0].summary", "changed"),
        ("cards[0].links", "removed"),
        ("cards[0].uuid", "added"),
        ("cards[1]", "removed"),
    ]
    assert found[0].before == '"a"' and found[0].after == '"x"'
    assert not any(one.before or one.after for one in without_values(found))


def test_true_is_not_one_and_the_order_of_members_counts() -> None:
    assert between({"a": 1}, {"a": True})[0].change == "changed"
    assert differences(b'{"a":1,"b":2}', b'{"b":2,"a":1}') == (Difference("$", "order"),)
