# SPDX-License-Identifier: Apache-2.0
"""The pure rules of shadow documents (aws-iot-protocol.md section 9.3)."""

from __future__ import annotations

import copy
import json

from hypothesis import given
from hypothesis import strategies as st

from edgefleet.shadow import document
from edgefleet.shadow.document import Shadow

keys = st.sampled_from("abc")
scalars = st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["x", ""])
arrays = st.lists(scalars, max_size=2)
states = st.recursive(
    st.dictionaries(keys, scalars | arrays, max_size=3),
    lambda inner: st.dictionaries(keys, scalars | arrays | inner, max_size=3),
    max_leaves=6,
)
patches = st.recursive(
    st.dictionaries(keys, scalars | arrays | st.none(), max_size=3),
    lambda inner: st.dictionaries(keys, scalars | arrays | inner | st.none(), max_size=3),
    max_leaves=6,
)


def leaves(value, path=()):
    """Paths of all leaves; an empty object is none."""
    if isinstance(value, dict):
        return {leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))}
    return {path}


def at(value, path):
    for key in path:
        value = value[key]
    return value


def test_objects_merge_and_everything_else_replaces():
    state, _ = document.merge(
        {"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {}, "d": {}}, {"a": {"c": [3]}, "d": {"e": 1}}, 5
    )
    assert state == {"a": {"b": 1, "c": [3]}, "d": {"e": 1}}


def test_null_deletes_a_key_and_a_section():
    shadow = document.update(Shadow(), {"desired": {"a": 1, "b": 2}, "reported": {"a": 1}}, 5)
    shadow = document.update(shadow, {"desired": {"a": None}, "reported": None}, 6)
    assert (shadow.state, shadow.metadata) == ({"desired": {"b": 2}}, {"desired": {"b": {"timestamp": 5}}})


def test_metadata_of_an_array_has_one_stamp_an_element():
    assert document.stamp({"a": [1, {"b": 2}]}, 5) == {"a": [{"timestamp": 5}, {"b": {"timestamp": 5}}]}


def test_delta_has_the_differing_leaves_with_their_whole_path():
    desired = {"a": {"b": 1, "c": 2}, "d": [1], "e": 5, "f": 1}
    reported = {"a": {"b": 1, "c": 3}, "d": [1, 2], "e": 5.0, "f": True, "g": 0}
    assert document.delta(desired, reported) == {"a": {"c": 2}, "d": [1], "f": 1}


@given(st.lists(st.tuples(st.sampled_from(["desired", "reported"]), st.none() | patches), max_size=5))
def test_metadata_mirrors_the_state_whatever_is_patched(changes):
    shadow = Shadow()
    for now, (section, patch) in enumerate(changes):
        before = copy.deepcopy(shadow)
        after = document.update(shadow, {section: patch}, now)
        assert shadow == before
        shadow = after
        assert shadow.version == now + 1
        for name in document.SECTIONS:
            state, metadata = getattr(shadow, name) or {}, getattr(shadow, f"{name}_metadata") or {}
            assert "null" not in json.dumps(state)
            for leaf in leaves(state):
                marks = at(metadata, leaf)
                marks = marks if isinstance(marks, list) else [marks]
                assert all(set(mark) == {"timestamp"} for mark in marks)
                if isinstance(at(state, leaf), list):
                    assert len(marks) == len(at(state, leaf))


@given(states, states)
def test_reporting_the_delta_leaves_no_delta(desired, reported):
    difference = document.delta(desired, reported)
    merged, _ = document.merge(reported, document.stamp(reported, 1), difference, 2)
    assert document.delta(desired, merged) == {}


@given(states)
def test_nothing_differs_from_itself(state):
    assert document.delta(state, copy.deepcopy(state)) == {}


@given(states, states)
def test_the_delta_is_part_of_what_is_desired(desired, reported):
    difference = document.delta(desired, reported)
    picked = document.pick(document.stamp(desired, 7), difference)
    assert document.delta(difference, desired) == {}
    assert picked == document.stamp(difference, 7)


@given(states, patches)
def test_a_patch_applied_twice_is_as_one(state, patch):
    once, _ = document.merge(state, document.stamp(state, 1), patch, 2)
    twice, _ = document.merge(once, document.stamp(once, 1), patch, 3)
    assert document.same(once, twice)
