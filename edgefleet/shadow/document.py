# SPDX-License-Identifier: Apache-2.0
"""Shadow documents: merge, metadata, delta. Pure; nothing given is changed in place.

Source: aws-iot-protocol.md sections 9.2, 9.3, Appendix D.2. Nesting is bounded by `requests.py` before anything here
recurses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

SECTIONS = ("desired", "reported")


@dataclass(frozen=True, slots=True)
class Shadow:
    """A shadow's content. A section is None if it does not exist; metadata mirrors its section leaf by leaf."""

    version: int = 0
    desired: Mapping[str, Any] | None = None
    reported: Mapping[str, Any] | None = None
    desired_metadata: Mapping[str, Any] | None = None
    reported_metadata: Mapping[str, Any] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """Both sections, empty ones left out."""
        return {name: getattr(self, name) for name in SECTIONS if getattr(self, name)}

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the sections that `state` shows."""
        return {name: getattr(self, f"{name}_metadata") for name in SECTIONS if getattr(self, name)}

    @property
    def delta(self) -> dict[str, Any]:
        """What is desired and not so reported; empty if nothing."""
        return delta(self.desired or {}, self.reported or {})


def update(shadow: Shadow, state: Mapping[str, Any], now: int) -> Shadow:
    """Apply the `state` of a request. An empty one changes nothing but the version. now: epoch seconds."""
    changes: dict[str, Any] = {}
    for name in SECTIONS:
        if name not in state:
            continue
        merged: Any = (None, None)
        if state[name] is not None:
            merged = merge(getattr(shadow, name) or {}, getattr(shadow, f"{name}_metadata") or {}, state[name], now)
        changes[name], changes[f"{name}_metadata"] = merged
    return replace(shadow, version=shadow.version + 1, **changes)


def merge(
    state: Mapping[str, Any], metadata: Mapping[str, Any], patch: Mapping[str, Any], now: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, metadata) after a patch: objects merge key by key, null deletes, everything else replaces."""
    merged, marks = dict(state), dict(metadata)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
            marks.pop(key, None)
        elif isinstance(value, dict):
            old = merged.get(key)
            inner, inner_marks = (old, marks[key]) if isinstance(old, dict) else ({}, {})
            merged[key], marks[key] = merge(inner, inner_marks, value, now)
        else:
            merged[key] = _without_nulls(value)
            marks[key] = stamp(value, now)
    return merged, marks


def stamp(value: Any, now: int) -> Any:
    """Metadata of a value: `{"timestamp": now}` at every leaf, one for each element of an array."""
    if isinstance(value, dict):
        return {key: stamp(inner, now) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [stamp(inner, now) for inner in value]
    return {"timestamp": now}


def delta(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> dict[str, Any]:
    """Every path of `desired` whose value `reported` does not have. Arrays are compared as whole values."""
    different: dict[str, Any] = {}
    for key, wanted in desired.items():
        if key not in reported:
            different[key] = wanted
        elif isinstance(wanted, dict) and isinstance(reported[key], dict):
            inner = delta(wanted, reported[key])
            if inner:
                different[key] = inner
        elif not same(wanted, reported[key]):
            different[key] = wanted
    return different


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0 but not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def pick(metadata: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of those paths that `part` (a delta) names."""
    return {
        key: pick(metadata[key], value)
        if isinstance(value, dict) and isinstance(metadata[key], dict)
        else metadata[key]
        for key, value in part.items()
        if key in metadata
    }


def _without_nulls(value: Any) -> Any:
    """A value inside an array, where there is nothing that null could delete."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value
