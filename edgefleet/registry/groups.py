# SPDX-License-Identifier: Apache-2.0
"""Static thing groups and their hierarchy (aws-iot-protocol.md section 7.3)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, TypedDict

from edgefleet import names
from edgefleet.errors import already_exists, invalid, not_found, version_conflict
from edgefleet.registry import attributes as rules
from edgefleet.registry import listing, things
from edgefleet.store import Tx

DEPTH = 7  # levels, the root included
CHILDREN = 100
GROUPS_OF_THING = 10
DESCRIPTION = 2028

_UP = """WITH RECURSIVE up (name, parent, level) AS (
  SELECT name, parent, 0 FROM thing_groups WHERE name = ?
  UNION ALL SELECT g.name, g.parent, level + 1 FROM thing_groups g JOIN up ON g.name = up.parent)"""
_DOWN = """WITH RECURSIVE down (name) AS (
  SELECT ? UNION ALL SELECT g.name FROM thing_groups g JOIN down ON g.parent = down.name)"""
_MEMBERS_BELOW = (
    f"{_DOWN} SELECT DISTINCT thing_name FROM thing_group_members"  # noqa: S608 - constants only
    " JOIN down ON group_name = down.name WHERE 1"
)
_ANCESTORS = f"{_UP} SELECT name FROM up WHERE level > 0 ORDER BY level DESC"  # noqa: S608 - constants only
_BELOW = f"{_DOWN} SELECT name FROM down WHERE name <> ?"  # noqa: S608 - constants only


class Group(TypedDict):
    thingGroupName: str
    thingGroupId: str
    parentGroupName: str | None
    thingGroupProperties: dict[str, Any]
    version: int
    creationDate: float


def create(tx: Tx, name: str, parent: str | None = None, properties: Mapping[str, Any] | None = None) -> Group:
    """Make a group. Doing it again with the same parent and properties succeeds.

    properties: thingGroupProperties of the API. Raises InvalidRequestException (also for depth and number of
    children), ResourceNotFoundException (parent), ResourceAlreadyExistsException.
    """
    names.check("thingGroupName", name)
    checked = _check(properties)
    existing = get(tx, name)
    if existing is not None:
        if existing["parentGroupName"] == parent and existing["thingGroupProperties"] == checked:
            return existing
        raise already_exists(
            f"Thing group {name} already exists with different properties",
            resourceId=name,
            resourceArn=names.arn(f"thinggroup/{name}"),
        )
    if parent is not None:
        require(tx, parent)
        if len(ancestors_of(tx, parent)) + 2 > DEPTH:
            raise invalid(f"Thing group {name} would be deeper than {DEPTH} levels")
        if tx.value("SELECT count(*) FROM thing_groups WHERE parent = ?", (parent,)) >= CHILDREN:
            raise invalid(f"Thing group {parent} already has {CHILDREN} child groups")
    tx.execute(
        "INSERT INTO thing_groups (name, id, parent, properties, version, created_at) VALUES (?, ?, ?, ?, 1, ?)",
        (name, str(uuid.uuid4()), parent, json.dumps(checked), time.time()),
    )
    return require(tx, name)


def get(tx: Tx, name: str) -> Group | None:
    row = tx.one("SELECT * FROM thing_groups WHERE name = ?", (name,))
    if row is None:
        return None
    return Group(
        thingGroupName=row["name"],
        thingGroupId=row["id"],
        parentGroupName=row["parent"],
        thingGroupProperties=json.loads(row["properties"]),
        version=row["version"],
        creationDate=row["created_at"],
    )


def require(tx: Tx, name: str) -> Group:
    """The group. Raises ResourceNotFoundException."""
    found = get(tx, name)
    if found is None:
        raise not_found(f"Thing group {names.ACCOUNT}:{name} not found.")
    return found


def update(tx: Tx, name: str, properties: Mapping[str, Any], expected_version: int | None = None) -> int:
    """Replace description and attributes (`attributePayload.merge` adds). Returns the new version."""
    old = require(tx, name)
    _check_version(old, expected_version)
    checked = _check(properties, old["thingGroupProperties"])
    tx.execute(
        "UPDATE thing_groups SET properties = ?, version = version + 1 WHERE name = ?", (json.dumps(checked), name)
    )
    return old["version"] + 1


def delete(tx: Tx, name: str, expected_version: int | None = None) -> None:
    """Remove a group, its memberships and policy attachments; an unknown group is no error.

    Raises InvalidRequestException while it has child groups, VersionConflictException.
    """
    old = get(tx, name)
    if old is None:
        return
    _check_version(old, expected_version)
    if tx.one("SELECT 1 FROM thing_groups WHERE parent = ?", (name,)):
        raise invalid(f"Cannot delete. Thing group {name} still has child groups")
    for thing in members(tx, name, recursive=False):
        tx.touch(thing)
    _note_policies(tx)
    tx.execute("DELETE FROM policy_targets WHERE kind = 'thinggroup' AND target = ?", (name,))
    tx.execute("DELETE FROM thing_groups WHERE name = ?", (name,))


def add_thing(tx: Tx, group: str, thing: str) -> None:
    """Put a thing into a group; being there already is no error.

    Raises ResourceNotFoundException, InvalidRequestException (10 groups; two groups of one branch).
    """
    require(tx, group)
    things.require(tx, thing)
    current = groups_of(tx, thing)
    if group in current:
        return
    if len(current) >= GROUPS_OF_THING:
        raise invalid(f"Thing {thing} is already in {GROUPS_OF_THING} groups")
    if current:
        branch = {*ancestors_of(tx, group), *descendants_of(tx, group)}
        for other in current:
            if other in branch:
                raise invalid(f"Thing {thing} is already in group {other}, which is in the same hierarchy as {group}")
    tx.execute("INSERT INTO thing_group_members (group_name, thing_name) VALUES (?, ?)", (group, thing))
    tx.touch(thing)
    _note_policies(tx)


def remove_thing(tx: Tx, group: str, thing: str) -> None:
    """Take a thing out of a group; not being there is no error. Raises ResourceNotFoundException."""
    require(tx, group)
    things.require(tx, thing)
    tx.execute("DELETE FROM thing_group_members WHERE group_name = ? AND thing_name = ?", (group, thing))
    tx.touch(thing)
    _note_policies(tx)


def members(tx: Tx, group: str, recursive: bool = True) -> list[str]:
    """Names of the things in a group, by default also those in all groups below it, sorted."""
    if not recursive:
        rows = tx.all("SELECT thing_name FROM thing_group_members WHERE group_name = ? ORDER BY 1", (group,))
    else:
        rows = tx.all(f"{_MEMBERS_BELOW} ORDER BY 1", (group,))
    return [row[0] for row in rows]


def members_page(
    tx: Tx, group: str, recursive: bool, token: str | None = None, size: int | None = None
) -> tuple[list[str], str | None]:
    """A page of `members`. Raises ResourceNotFoundException."""
    require(tx, group)
    source = _MEMBERS_BELOW if recursive else "SELECT thing_name FROM thing_group_members WHERE group_name = ?"
    rows, following = listing.page(tx, source, [group], "thing_name", token, size)
    return [row[0] for row in rows], following


def groups_of(tx: Tx, thing: str) -> list[str]:
    """The groups a thing is directly in, sorted."""
    return [
        row[0] for row in tx.all("SELECT group_name FROM thing_group_members WHERE thing_name = ? ORDER BY 1", (thing,))
    ]


def ancestors_of(tx: Tx, group: str) -> list[str]:
    """The groups above a group, root first; without itself."""
    return [row[0] for row in tx.all(_ANCESTORS, (group,))]


def descendants_of(tx: Tx, group: str) -> list[str]:
    """The groups below a group; without itself."""
    return [row[0] for row in tx.all(_BELOW, (group, group))]


def effective_groups_of(tx: Tx, thing: str) -> list[str]:
    """The groups of a thing and all groups above them, sorted: whose policies apply to it (section 7.3)."""
    found: set[str] = set()
    for group in groups_of(tx, thing):
        found.update((group, *ancestors_of(tx, group)))
    return sorted(found)


def list_(
    tx: Tx,
    *,
    parent: str | None = None,
    prefix: str | None = None,
    recursive: bool = False,
    token: str | None = None,
    size: int | None = None,
) -> tuple[list[str], str | None]:
    """A page of group names. parent: only its children, with `recursive` all groups below it; None: all groups.

    Raises ResourceNotFoundException for an unknown parent.
    """
    if parent is None:
        select, parameters = "SELECT name FROM thing_groups WHERE 1", list[Any]()
    else:
        require(tx, parent)
        parameters = [parent]
        select = "SELECT name FROM thing_groups WHERE parent = ?"
        if recursive:
            select, parameters = _BELOW, [parent, parent]
    if prefix is not None:
        select += " AND substr(name, 1, ?) = ?"
        parameters += [len(prefix), prefix]
    rows, following = listing.page(tx, select, parameters, "name", token, size)
    return [row["name"] for row in rows], following


def _note_policies(tx: Tx) -> None:
    """Membership matters to authorizers only if some group has a policy; onboarding a fleet must not empty their
    caches once a device."""
    if tx.one("SELECT 1 FROM policy_targets WHERE kind = 'thinggroup'"):
        tx.policies_changed = True


def _check(properties: Mapping[str, Any] | None, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """thingGroupProperties as stored: description, and attributes without the `merge` flag."""
    given = properties or {}
    checked: dict[str, Any] = {}
    description = given.get("thingGroupDescription")
    if description is not None:
        if len(description) > DESCRIPTION:
            raise invalid(f"thingGroupDescription: at most {DESCRIPTION} characters are allowed")
        checked["thingGroupDescription"] = description
    payload = given.get("attributePayload")
    before = (old or {}).get("attributePayload", {}).get("attributes", {})
    if payload is not None:
        found = rules.merged(before, rules.check(payload.get("attributes")), bool(payload.get("merge")))
        if len(found) > rules.OF_GROUP:
            raise invalid(f"attributes: a group can have at most {rules.OF_GROUP}, not {len(found)}")
        if found:
            checked["attributePayload"] = {"attributes": found}
    elif before:
        checked["attributePayload"] = {"attributes": before}
    if old is not None and description is None and "thingGroupDescription" in old:
        checked["thingGroupDescription"] = old["thingGroupDescription"]
    return checked


def _check_version(group: Group, expected: int | None) -> None:
    if expected is not None and expected != group["version"]:
        raise version_conflict(
            f"Thing group {group['thingGroupName']} has version {group['version']}, the request expects {expected}"
        )
