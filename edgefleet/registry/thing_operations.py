# SPDX-License-Identifier: Apache-2.0
"""HTTP operations on things and thing types: AWS names in, AWS shapes out (sections 7.1, 7.2)."""

from __future__ import annotations

from typing import Any

from edgefleet import names
from edgefleet.registry import things, types
from edgefleet.registry.listing import with_token
from edgefleet.registry.things import Thing
from edgefleet.registry.types import ThingType
from edgefleet.store import Tx


class ThingOperations:
    def create_thing(
        self,
        tx: Tx,
        *,
        thingName: str,
        thingTypeName: str | None = None,
        attributePayload: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        made = things.create(tx, thingName, thingTypeName, (attributePayload or {}).get("attributes"))
        return {"thingName": thingName, "thingArn": names.arn(f"thing/{thingName}"), "thingId": made["thingId"]}

    def describe_thing(self, tx: Tx, *, thingName: str) -> dict[str, Any]:
        thing = things.require(tx, thingName)
        return {"defaultClientId": thingName, "thingId": thing["thingId"], **_listed(thing)}

    def update_thing(
        self,
        tx: Tx,
        *,
        thingName: str,
        thingTypeName: str | None = None,
        attributePayload: dict[str, Any] | None = None,
        expectedVersion: int | None = None,
        removeThingType: bool = False,
    ) -> dict[str, Any]:
        payload = attributePayload or {}
        things.update(
            tx,
            thingName,
            thingTypeName,
            payload.get("attributes"),
            merge=bool(payload.get("merge")),
            remove_type=removeThingType,
            expected_version=expectedVersion,
        )
        return {}

    def delete_thing(self, tx: Tx, *, thingName: str, expectedVersion: int | None = None) -> dict[str, Any]:
        things.delete(tx, thingName, expectedVersion)
        return {}

    def list_things(
        self,
        tx: Tx,
        *,
        nextToken: str | None = None,
        maxResults: int | None = None,
        attributeName: str | None = None,
        attributeValue: str | None = None,
        thingTypeName: str | None = None,
        usePrefixAttributeValue: bool = False,
    ) -> dict[str, Any]:
        found, token = things.list_(
            tx,
            type_name=thingTypeName,
            attribute=attributeName,
            value=attributeValue,
            value_is_prefix=usePrefixAttributeValue,
            token=nextToken,
            size=maxResults,
        )
        return with_token({"things": [_listed(thing) for thing in found]}, token)

    def create_thing_type(
        self, tx: Tx, *, thingTypeName: str, thingTypeProperties: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        made = types.create(tx, thingTypeName, thingTypeProperties)
        return {
            "thingTypeName": thingTypeName,
            "thingTypeArn": names.arn(f"thingtype/{thingTypeName}"),
            "thingTypeId": made["thingTypeId"],
        }

    def describe_thing_type(self, tx: Tx, *, thingTypeName: str) -> dict[str, Any]:
        found = types.require(tx, thingTypeName)
        return {"thingTypeId": found["thingTypeId"], **_listed_type(found)}

    def update_thing_type(
        self, tx: Tx, *, thingTypeName: str, thingTypeProperties: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        types.update(tx, thingTypeName, thingTypeProperties or {})
        return {}

    def deprecate_thing_type(self, tx: Tx, *, thingTypeName: str, undoDeprecate: bool = False) -> dict[str, Any]:
        types.deprecate(tx, thingTypeName, undoDeprecate)
        return {}

    def delete_thing_type(self, tx: Tx, *, thingTypeName: str) -> dict[str, Any]:
        types.delete(tx, thingTypeName)
        return {}

    def list_thing_types(
        self, tx: Tx, *, nextToken: str | None = None, maxResults: int | None = None, thingTypeName: str | None = None
    ) -> dict[str, Any]:
        found, token = types.list_(tx, name=thingTypeName, token=nextToken, size=maxResults)
        return with_token({"thingTypes": [_listed_type(one) for one in found]}, token)


def _listed(thing: Thing) -> dict[str, Any]:
    """The members that ListThings and DescribeThing share."""
    result: dict[str, Any] = {
        "thingName": thing["thingName"],
        "thingArn": names.arn(f"thing/{thing['thingName']}"),
        "attributes": thing["attributes"],
        "version": thing["version"],
    }
    if thing["thingTypeName"] is not None:
        result["thingTypeName"] = thing["thingTypeName"]
    return result


def _listed_type(found: ThingType) -> dict[str, Any]:
    """The members that ListThingTypes and DescribeThingType share."""
    metadata: dict[str, Any] = {
        "deprecated": found["deprecationDate"] is not None,
        "creationDate": found["creationDate"],
    }
    if found["deprecationDate"] is not None:
        metadata["deprecationDate"] = found["deprecationDate"]
    return {
        "thingTypeName": found["thingTypeName"],
        "thingTypeArn": names.arn(f"thingtype/{found['thingTypeName']}"),
        "thingTypeProperties": found["thingTypeProperties"],
        "thingTypeMetadata": metadata,
    }
