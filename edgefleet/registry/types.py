# SPDX-License-Identifier: Apache-2.0
"""Thing types (aws-iot-protocol.md section 7.2)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, TypedDict

from edgefleet import names
from edgefleet.errors import already_exists, invalid, not_found
from edgefleet.registry import listing
from edgefleet.store import Tx

DESCRIPTION = 2028
SEARCHABLE = 3
DELETE_AFTER_S = 300  # a type can be deleted this long after its deprecation


class ThingType(TypedDict):
    thingTypeName: str
    thingTypeId: str
    thingTypeProperties: dict[str, Any]
    creationDate: float
    deprecationDate: float | None


def create(tx: Tx, name: str, properties: Mapping[str, Any] | None = None) -> ThingType:
    """Make a type. Doing it again with the same properties succeeds.

    properties: thingTypeProperties of the API. Raises InvalidRequestException, ResourceAlreadyExistsException.
    """
    names.check("thingTypeName", name)
    checked = _check(properties)
    existing = get(tx, name)
    if existing is not None:
        if existing["thingTypeProperties"] == checked:
            return existing
        raise already_exists(
            f"Thing type {name} already exists with different properties",
            resourceId=name,
            resourceArn=names.arn(f"thingtype/{name}"),
        )
    tx.execute(
        "INSERT INTO thing_types (name, id, properties, created_at) VALUES (?, ?, ?, ?)",
        (name, str(uuid.uuid4()), json.dumps(checked), time.time()),
    )
    return require(tx, name)


def get(tx: Tx, name: str) -> ThingType | None:
    row = tx.one("SELECT * FROM thing_types WHERE name = ?", (name,))
    if row is None:
        return None
    return ThingType(
        thingTypeName=row["name"],
        thingTypeId=row["id"],
        thingTypeProperties=json.loads(row["properties"]),
        creationDate=row["created_at"],
        deprecationDate=row["deprecated_at"],
    )


def require(tx: Tx, name: str) -> ThingType:
    """The type. Raises ResourceNotFoundException."""
    found = get(tx, name)
    if found is None:
        raise not_found(f"Thing type {names.ACCOUNT}:{name} not found.")
    return found


def assignable(tx: Tx, name: str) -> None:
    """Raises unless things may get this type: ResourceNotFoundException, InvalidRequestException if deprecated."""
    if require(tx, name)["deprecationDate"] is not None:
        raise invalid(f"Thing type {name} is deprecated and cannot be associated with things")


def update(tx: Tx, name: str, properties: Mapping[str, Any]) -> None:
    require(tx, name)
    tx.execute("UPDATE thing_types SET properties = ? WHERE name = ?", (json.dumps(_check(properties)), name))


def deprecate(tx: Tx, name: str, undo: bool = False) -> None:
    """Forbid (or, with undo, allow again) giving the type to things. Repeating it keeps the first date."""
    if undo:
        require(tx, name)
        tx.execute("UPDATE thing_types SET deprecated_at = NULL WHERE name = ?", (name,))
    elif require(tx, name)["deprecationDate"] is None:
        tx.execute("UPDATE thing_types SET deprecated_at = ? WHERE name = ?", (time.time(), name))


def delete(tx: Tx, name: str) -> None:
    """Raises InvalidRequestException if not deprecated for five minutes, or still used by a thing."""
    deprecated_at = require(tx, name)["deprecationDate"]
    if deprecated_at is None:
        raise invalid(f"Thing type {name} must be deprecated before it is deleted")
    if time.time() - deprecated_at < DELETE_AFTER_S:
        raise invalid(f"Thing type {name} can be deleted {DELETE_AFTER_S // 60} minutes after its deprecation")
    if tx.one("SELECT 1 FROM things WHERE type_name = ?", (name,)):
        raise invalid(f"Thing type {name} is still associated with things")
    tx.execute("DELETE FROM thing_types WHERE name = ?", (name,))


def list_(
    tx: Tx, *, name: str | None = None, token: str | None = None, size: int | None = None
) -> tuple[list[ThingType], str | None]:
    """A page of types in name order; `name` keeps the one type of that name."""
    select, parameters = "SELECT name FROM thing_types WHERE 1", []
    if name is not None:
        select, parameters = select + " AND name = ?", [name]
    rows, following = listing.page(tx, select, parameters, "name", token, size)
    return [require(tx, row["name"]) for row in rows], following


def _check(properties: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(properties or {})
    description = given.get("thingTypeDescription", "")
    searchable = given.get("searchableAttributes", [])
    if len(description) > DESCRIPTION:
        raise invalid(f"thingTypeDescription: at most {DESCRIPTION} characters are allowed, not {len(description)}")
    if len(searchable) > SEARCHABLE:
        raise invalid(f"searchableAttributes: at most {SEARCHABLE} are allowed, not {len(searchable)}")
    for attribute in searchable:
        names.check("attributeName", attribute)
    return given
