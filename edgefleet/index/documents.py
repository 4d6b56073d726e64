# SPDX-License-Identifier: Apache-2.0
"""What the index knows of a thing: the document that a search returns, and the terms that find it.

Source: aws-iot-protocol.md sections 8.2 (fields), 8.4 (shapes).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from edgefleet.index import values
from edgefleet.index.values import Term
from edgefleet.registry import groups, things
from edgefleet.shadow import service as shadows
from edgefleet.shadow.document import Shadow
from edgefleet.store import Tx

MAX_NAMED = 100  # named shadows of one thing that are indexed, in order of their names


def build(tx: Tx, name: str) -> tuple[dict[str, Any], list[Term]] | None:
    """(document, terms) of a thing, or None if the registry does not have it: then nothing of it is indexed."""
    thing = things.get(tx, name)
    if thing is None:
        return None
    direct = groups.groups_of(tx, name)
    classic = shadows.find(tx, name, None)
    named = {
        one: found
        for one in shadows.named(tx, name, "", MAX_NAMED)
        if (found := shadows.find(tx, name, one)) is not None
    }
    online = connectivity(tx, name)
    document: dict[str, Any] = {"thingName": name, "thingId": thing["thingId"]}
    if thing.get("thingTypeName"):
        document["thingTypeName"] = thing["thingTypeName"]
    if direct:
        document["thingGroupNames"] = direct
    if thing["attributes"]:
        document["attributes"] = dict(thing["attributes"])
    if classic is not None or named:
        shown = {} if classic is None else _shadow(classic)
        if named:
            shown["name"] = {one: _shadow(found) for one, found in named.items()}
        document["shadow"] = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    document["connectivity"] = online
    return document, list(_unique(_terms(thing, set(groups.effective_groups_of(tx, name)), classic, named, online)))


def connectivity(tx: Tx, name: str) -> dict[str, Any]:
    """The connectivity of a thing as the broker last stored it; times in epoch milliseconds."""
    row = tx.one(
        "SELECT * FROM connectivity WHERE thing_name = ? ORDER BY connected DESC, timestamp_ms DESC LIMIT 1", (name,)
    )
    if row is None:
        return {"connected": False}
    shown: dict[str, Any] = {"connected": bool(row["connected"]), "timestamp": row["timestamp_ms"]}
    if row["disconnect_reason"] is not None:
        shown["disconnectReason"] = row["disconnect_reason"]
    shown["keepAliveDuration"] = row["keep_alive"]
    shown["cleanSession"] = bool(row["clean_session"])
    shown["clientId"] = row["client_id"]
    return shown


def _shadow(shadow: Shadow) -> dict[str, Any]:
    """One shadow inside the `shadow` string of a search result."""
    shown: dict[str, Any] = shadow.state
    delta = shadow.delta
    if delta:
        shown["delta"] = delta
    shown["metadata"] = shadow.metadata
    shown["hasDelta"] = bool(delta)
    shown["version"] = shadow.version
    return shown


def _terms(thing: Mapping[str, Any], all_groups: set[str], classic: Shadow | None, named: Mapping[str, Shadow],
           online: Mapping[str, Any]) -> Iterator[Term]:  # fmt: skip
    for field in ("thingName", "thingId", "thingTypeName"):
        if thing.get(field):
            yield values.term(field, thing[field], True)
    yield values.term("registry.version", thing["version"], False)
    for group in all_groups:
        yield values.term("thingGroupNames", group, True)
    yield from flatten("attributes", thing["attributes"], True)
    for prefix, shadow in [("shadow", classic), *((f"shadow.name.{one}", found) for one, found in named.items())]:
        if shadow is not None:
            yield from _shadow_terms(prefix, shadow)
    yield from flatten("connectivity", online, False)


def _shadow_terms(prefix: str, shadow: Shadow) -> Iterator[Term]:
    delta = shadow.delta
    for section, value in (*shadow.state.items(), ("delta", delta), ("metadata", shadow.metadata)):
        yield from flatten(f"{prefix}.{section}", value, True)
    yield values.term(f"{prefix}.hasDelta", bool(delta), True)
    yield values.term(f"{prefix}.version", shadow.version, False)


def flatten(prefix: str, value: Any, anywhere: bool) -> Iterator[Term]:
    """The terms of a JSON value: objects by their paths, arrays of simple values by each element, null not at all."""
    stack = [(prefix, value)]
    while stack:
        field, one = stack.pop()
        if isinstance(one, Mapping):
            stack.extend((f"{field}.{key}", inner) for key, inner in one.items())
        elif isinstance(one, list):
            if all(isinstance(inner, str | int | float) for inner in one):
                stack.extend((field, inner) for inner in one)
        elif one is not None:
            yield values.term(field, one, anywhere)


def _unique(terms: Iterator[Term]) -> Iterator[Term]:
    """One row for a key: an array may hold a value twice, or in upper and lower case."""
    seen = set()
    for one in terms:
        key = (one.field, one.value, one.kind)
        if key not in seen:
            seen.add(key)
            yield one
