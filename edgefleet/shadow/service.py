# SPDX-License-Identifier: Apache-2.0
"""Shadows in the store: get, update, delete, list. Accepted changes are published here, whoever asked for them.

Source: aws-iot-protocol.md sections 9.1-9.4.
"""

from __future__ import annotations

import json
import re
from typing import Any

from edgeagent import topics
from edgefleet.shadow import document, requests
from edgefleet.shadow.document import Shadow
from edgefleet.shadow.requests import ShadowError
from edgefleet.store import Tx

TOMBSTONE_S = 48 * 3600  # how long a deleted shadow's version counter is kept
_NAME = re.compile(r"[$a-zA-Z0-9:_-]{1,64}")
_COLUMNS = ("desired", "reported", "desired_metadata", "reported_metadata")


def find(tx: Tx, thing: str, name: str | None) -> Shadow | None:
    """The shadow, or None. name: None for the classic one."""
    row = tx.one("SELECT * FROM shadows WHERE thing_name = ? AND shadow_name = ? AND deleted_at IS NULL",
                 (thing, name or ""))  # fmt: skip
    if row is None:
        return None
    return Shadow(row["version"], *(None if row[column] is None else json.loads(row[column]) for column in _COLUMNS))


def get(tx: Tx, thing: str, name: str | None, now: int, token: str | None = None) -> dict[str, Any]:
    """The answer of a get: the whole document and its delta. Raises ShadowError 404."""
    shadow = _existing(tx, thing, name, token)
    state, metadata = shadow.state, shadow.metadata
    delta = shadow.delta
    if delta:
        state["delta"] = delta
        metadata["delta"] = document.pick(shadow.desired_metadata or {}, delta)
    return _with_token({"state": state, "metadata": metadata, "version": shadow.version, "timestamp": now}, token)


def update(tx: Tx, thing: str, name: str | None, data: bytes, now: int) -> dict[str, Any]:
    """Apply an update request and publish accepted, delta and documents. Returns the accepted document.

    Raises ShadowError; then nothing has changed.
    """
    _check_name(name)
    request = requests.update(data)
    previous = find(tx, thing, name)
    base = previous or Shadow(_counter(tx, thing, name, now))
    # A shadow that does not exist is expected at version 0, or where its deleted predecessor stopped.
    if request.version is not None and request.version not in {base.version} | ({0} if previous is None else set()):
        raise ShadowError(409, "Version conflict", request.token)
    current = document.update(base, request.state, now)
    requests.check_size(current.state, request.token)
    _save(tx, thing, name, current, now)

    def publish(operation: str, message: dict[str, Any]) -> dict[str, Any]:
        tx.publish(topics.shadow(thing, operation, name), _with_token(message, request.token))
        return message

    head = {"version": current.version, "timestamp": now}
    metadata = {key: document.stamp(section, now) for key, section in request.state.items() if section is not None}
    accepted = publish("update/accepted", {"state": request.state, "metadata": metadata, **head})
    delta = current.delta
    if delta:
        picked = document.pick(current.desired_metadata or {}, delta)
        publish("update/delta", {"state": delta, "metadata": picked, **head})
    documents = {"previous": _shown(previous)} if previous is not None else {}
    publish("update/documents", {**documents, "current": _shown(current), "timestamp": now})
    return accepted


def delete(tx: Tx, thing: str, name: str | None, now: int, token: str | None = None) -> dict[str, Any]:
    """Delete a shadow, keeping its version counter for a while; publishes and returns delete/accepted.

    Raises ShadowError 404.
    """
    shadow = _existing(tx, thing, name, token)
    tx.execute(
        "UPDATE shadows SET desired = NULL, reported = NULL, desired_metadata = NULL, reported_metadata = NULL,"
        " deleted_at = ? WHERE thing_name = ? AND shadow_name = ?",
        (now, thing, name or ""),
    )
    tx.touch(thing)
    message = _with_token({"version": shadow.version, "timestamp": now}, token)
    tx.publish(topics.shadow(thing, "delete/accepted", name), message)
    return message


def named(tx: Tx, thing: str, after: str, limit: int) -> list[str]:
    """Names of a thing's named shadows above `after`, sorted."""
    rows = tx.all(
        "SELECT shadow_name FROM shadows WHERE thing_name = ? AND shadow_name > ? AND deleted_at IS NULL"
        " ORDER BY shadow_name LIMIT ?",
        (thing, after, limit),
    )
    return [row[0] for row in rows]


def _existing(tx: Tx, thing: str, name: str | None, token: str | None) -> Shadow:
    _check_name(name)
    shadow = find(tx, thing, name)
    if shadow is None:
        shown = thing if name is None else f"{thing}~{name}"
        raise ShadowError(404, f"No shadow exists with name: '{shown}'", token)
    return shadow


def _check_name(name: str | None) -> None:
    if name is not None and not _NAME.fullmatch(name):
        raise ShadowError(400, f"Invalid shadow name: it must match {_NAME.pattern}")


def _counter(tx: Tx, thing: str, name: str | None, now: int) -> int:
    """The version at which a deleted shadow stopped, or 0."""
    return (
        tx.value(
            "SELECT version FROM shadows WHERE thing_name = ? AND shadow_name = ? AND deleted_at > ?",
            (thing, name or "", now - TOMBSTONE_S),
        )
        or 0
    )


def _save(tx: Tx, thing: str, name: str | None, shadow: Shadow, now: int) -> None:
    texts = [None if section is None else json.dumps(section, ensure_ascii=False, separators=(",", ":"))
             for section in (getattr(shadow, column) for column in _COLUMNS)]  # fmt: skip
    tx.execute(
        "INSERT INTO shadows (thing_name, shadow_name, version, desired, reported, desired_metadata,"
        " reported_metadata, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (thing_name, shadow_name)"
        " DO UPDATE SET version = excluded.version, desired = excluded.desired, reported = excluded.reported,"
        " desired_metadata = excluded.desired_metadata, reported_metadata = excluded.reported_metadata,"
        " updated_at = excluded.updated_at, deleted_at = NULL",
        (thing, name or "", shadow.version, *texts, now),
    )
    tx.touch(thing)


def _shown(shadow: Shadow) -> dict[str, Any]:
    return {"state": shadow.state, "metadata": shadow.metadata, "version": shadow.version}


def _with_token(message: dict[str, Any], token: str | None) -> dict[str, Any]:
    if token is not None:
        message["clientToken"] = token
    return message
