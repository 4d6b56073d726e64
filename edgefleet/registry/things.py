# SPDX-License-Identifier: Apache-2.0
"""Things (aws-iot-protocol.md section 7.1). Every change touches the fleet index."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, TypedDict

from edgefleet import names
from edgefleet.errors import already_exists, invalid, not_found, version_conflict
from edgefleet.registry import attributes as rules
from edgefleet.registry import listing, types
from edgefleet.store import Tx


class Thing(TypedDict):
    thingName: str
    thingId: str
    thingTypeName: str | None
    attributes: dict[str, str]
    version: int


def create(tx: Tx, name: str, type_name: str | None = None, attributes: Mapping[str, Any] | None = None) -> Thing:
    """Register a thing. Doing it again with the same type and attributes succeeds and changes nothing.

    Raises InvalidRequestException (name, attribute, quota, deprecated type), ResourceNotFoundException (type),
    ResourceAlreadyExistsException (registered, but different).
    """
    names.check("thingName", name)
    wanted = rules.merged({}, rules.check(attributes), merge=False)
    rules.check_count(wanted, type_name is not None)
    existing = get(tx, name)
    if existing is not None:
        if existing["attributes"] == wanted and existing["thingTypeName"] == type_name:
            return existing
        raise already_exists(
            f"Thing {name} already exists in account {names.ACCOUNT} with different attributes or type",
            resourceId=name,
            resourceArn=names.arn(f"thing/{name}"),
        )
    if type_name is not None:
        types.assignable(tx, type_name)
    thing_id = str(uuid.uuid4())
    tx.execute(
        "INSERT INTO things (name, id, type_name, attributes, version, created_at) VALUES (?, ?, ?, ?, 1, ?)",
        (name, thing_id, type_name, json.dumps(wanted, separators=(",", ":")), time.time()),
    )
    tx.touch(name)
    return Thing(thingName=name, thingId=thing_id, thingTypeName=type_name, attributes=wanted, version=1)


def get(tx: Tx, name: str) -> Thing | None:
    """The thing, or None."""
    row = tx.one("SELECT name, id, type_name, attributes, version FROM things WHERE name = ?", (name,))
    if row is None:
        return None
    return Thing(
        thingName=row["name"],
        thingId=row["id"],
        thingTypeName=row["type_name"],
        attributes=json.loads(row["attributes"]),
        version=row["version"],
    )


def require(tx: Tx, name: str) -> Thing:
    """The thing. Raises ResourceNotFoundException."""
    found = get(tx, name)
    if found is None:
        raise not_found(f"Thing {names.ACCOUNT}:{name} not found.")
    return found


def update(
    tx: Tx,
    name: str,
    type_name: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    *,
    merge: bool = False,
    remove_type: bool = False,
    expected_version: int | None = None,
) -> Thing:
    """Change type or attributes; what is None stays.

    attributes: replace those of the thing, or with `merge` are added to them; an empty value deletes one.
    Raises ResourceNotFoundException, InvalidRequestException, VersionConflictException.
    """
    old = require(tx, name)
    _check_version(old, expected_version)
    if remove_type and type_name is not None:
        raise invalid("thingTypeName and removeThingType cannot be given together")
    if type_name is not None and type_name != old["thingTypeName"]:
        types.assignable(tx, type_name)
    new_type = None if remove_type else type_name or old["thingTypeName"]
    new_attributes = old["attributes"]
    if attributes is not None:
        new_attributes = rules.merged(old["attributes"], rules.check(attributes), merge)
    rules.check_count(new_attributes, new_type is not None)
    tx.execute(
        "UPDATE things SET type_name = ?, attributes = ?, version = version + 1 WHERE name = ?",
        (new_type, json.dumps(new_attributes, separators=(",", ":")), name),
    )
    tx.touch(name)
    # Type and attributes are policy variables of the thing's connections.
    if tx.one("SELECT 1 FROM thing_principals WHERE thing_name = ?", (name,)):
        tx.policies_changed = True
    return require(tx, name)


def delete(tx: Tx, name: str, expected_version: int | None = None) -> None:
    """Remove a thing and its group memberships; an unknown thing is no error.

    Raises InvalidRequestException while a principal is attached, VersionConflictException.
    """
    old = get(tx, name)
    if old is None:
        return
    _check_version(old, expected_version)
    if tx.one("SELECT 1 FROM thing_principals WHERE thing_name = ?", (name,)):
        raise invalid(f"Cannot delete. Thing {name} is still attached to one or more principals")
    tx.execute("DELETE FROM things WHERE name = ?", (name,))
    tx.deleted.add(name)
    tx.touch(name)


def list_(
    tx: Tx,
    *,
    type_name: str | None = None,
    attribute: str | None = None,
    value: str | None = None,
    value_is_prefix: bool = False,
    token: str | None = None,
    size: int | None = None,
) -> tuple[list[Thing], str | None]:
    """A page of things in name order, all filters joined by AND."""
    select, parameters = "SELECT name, id, type_name, attributes, version FROM things WHERE 1", list[Any]()
    if type_name is not None:
        select += " AND type_name = ?"
        parameters.append(names.check("thingTypeName", type_name))
    if attribute is not None:
        # Legal attribute names hold no quote, so the name is safe inside a JSON path.
        column = f"json_extract(attributes, '$.\"{names.check('attributeName', attribute)}\"')"
        if value is None:
            raise invalid("attributeValue is required with attributeName")
        if value_is_prefix:
            select += f" AND substr({column}, 1, ?) = ?"
            parameters += [len(value), value]
        else:
            select += f" AND {column} = ?"
            parameters.append(value)
    rows, following = listing.page(tx, select, parameters, "name", token, size)
    things = [
        Thing(
            thingName=row["name"],
            thingId=row["id"],
            thingTypeName=row["type_name"],
            attributes=json.loads(row["attributes"]),
            version=row["version"],
        )
        for row in rows
    ]
    return things, following


def _check_version(thing: Thing, expected: int | None) -> None:
    if expected is not None and expected != thing["version"]:
        raise version_conflict(
            f"Thing {thing['thingName']} has version {thing['version']}, the request expects {expected}"
        )
