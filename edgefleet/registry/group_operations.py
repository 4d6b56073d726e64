# SPDX-License-Identifier: Apache-2.0
"""HTTP operations on static thing groups (section 7.3)."""

from __future__ import annotations

from typing import Any

from edgefleet import names, paging
from edgefleet.errors import invalid
from edgefleet.registry import groups, things
from edgefleet.registry.listing import MOST, with_token
from edgefleet.store import Tx


class GroupOperations:
    def create_thing_group(
        self,
        tx: Tx,
        *,
        thingGroupName: str,
        parentGroupName: str | None = None,
        thingGroupProperties: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        made = groups.create(tx, thingGroupName, parentGroupName, thingGroupProperties)
        return {
            "thingGroupName": thingGroupName,
            "thingGroupArn": names.arn(f"thinggroup/{thingGroupName}"),
            "thingGroupId": made["thingGroupId"],
        }

    def describe_thing_group(self, tx: Tx, *, thingGroupName: str) -> dict[str, Any]:
        found = groups.require(tx, thingGroupName)
        metadata: dict[str, Any] = {"creationDate": found["creationDate"]}
        if found["parentGroupName"] is not None:
            metadata["parentGroupName"] = found["parentGroupName"]
            metadata["rootToParentThingGroups"] = [_named(name) for name in groups.ancestors_of(tx, thingGroupName)]
        return {
            "thingGroupName": thingGroupName,
            "thingGroupId": found["thingGroupId"],
            "thingGroupArn": names.arn(f"thinggroup/{thingGroupName}"),
            "version": found["version"],
            "thingGroupProperties": found["thingGroupProperties"],
            "thingGroupMetadata": metadata,
        }

    def update_thing_group(
        self,
        tx: Tx,
        *,
        thingGroupName: str,
        thingGroupProperties: dict[str, Any],
        expectedVersion: int | None = None,
    ) -> dict[str, Any]:
        return {"version": groups.update(tx, thingGroupName, thingGroupProperties, expectedVersion)}

    def delete_thing_group(self, tx: Tx, *, thingGroupName: str, expectedVersion: int | None = None) -> dict[str, Any]:
        groups.delete(tx, thingGroupName, expectedVersion)
        return {}

    def list_thing_groups(
        self,
        tx: Tx,
        *,
        nextToken: str | None = None,
        maxResults: int | None = None,
        parentGroup: str | None = None,
        namePrefixFilter: str | None = None,
        recursive: bool = False,
    ) -> dict[str, Any]:
        found, token = groups.list_(
            tx, parent=parentGroup, prefix=namePrefixFilter, recursive=recursive, token=nextToken, size=maxResults
        )
        return with_token({"thingGroups": [_named(name) for name in found]}, token)

    def add_thing_to_thing_group(
        self,
        tx: Tx,
        *,
        thingGroupName: str | None = None,
        thingGroupArn: str | None = None,
        thingName: str | None = None,
        thingArn: str | None = None,
        overrideDynamicGroups: bool = False,  # there are no dynamic groups yet, so nothing to override
    ) -> dict[str, Any]:
        groups.add_thing(tx, *_pair(thingGroupName, thingGroupArn, thingName, thingArn))
        return {}

    def remove_thing_from_thing_group(
        self,
        tx: Tx,
        *,
        thingGroupName: str | None = None,
        thingGroupArn: str | None = None,
        thingName: str | None = None,
        thingArn: str | None = None,
    ) -> dict[str, Any]:
        groups.remove_thing(tx, *_pair(thingGroupName, thingGroupArn, thingName, thingArn))
        return {}

    def update_thing_groups_for_thing(
        self,
        tx: Tx,
        *,
        thingName: str,
        thingGroupsToAdd: list[str] | None = None,
        thingGroupsToRemove: list[str] | None = None,
        overrideDynamicGroups: bool = False,
    ) -> dict[str, Any]:
        for group in thingGroupsToRemove or []:
            groups.remove_thing(tx, group, thingName)
        for group in thingGroupsToAdd or []:
            groups.add_thing(tx, group, thingName)
        return {}

    def list_things_in_thing_group(
        self,
        tx: Tx,
        *,
        thingGroupName: str,
        recursive: bool = False,
        nextToken: str | None = None,
        maxResults: int | None = None,
    ) -> dict[str, Any]:
        found, token = groups.members_page(tx, thingGroupName, recursive, nextToken, maxResults)
        return with_token({"things": found}, token)

    def list_thing_groups_for_thing(
        self, tx: Tx, *, thingName: str, nextToken: str | None = None, maxResults: int | None = None
    ) -> dict[str, Any]:
        things.require(tx, thingName)
        limit = paging.limit(maxResults, MOST)
        after = paging.decode(nextToken, str)
        found = [name for name in groups.groups_of(tx, thingName) if after is None or name > after[0]]
        token = paging.encode(found[limit - 1]) if len(found) > limit else None
        return with_token({"thingGroups": [_named(name) for name in found[:limit]]}, token)


def _named(name: str) -> dict[str, Any]:
    return {"groupName": name, "groupArn": names.arn(f"thinggroup/{name}")}


def _pair(group: str | None, group_arn: str | None, thing: str | None, thing_arn: str | None) -> tuple[str, str]:
    """(group name, thing name), each given by name or by ARN; both forms must agree if both are given."""
    return (
        _one("thingGroupName", group, "thingGroupArn", group_arn, "thinggroup"),
        _one("thingName", thing, "thingArn", thing_arn, "thing"),
    )


def _one(name_member: str, name: str | None, arn_member: str, arn: str | None, kind: str) -> str:
    from_arn = None if arn is None else names.resource(arn, kind)
    found = name or from_arn
    if not found:
        raise invalid(f"{name_member} or {arn_member} is required")
    if name and from_arn and name != from_arn:
        raise invalid(f"{name_member} and {arn_member} name different resources")
    return found
