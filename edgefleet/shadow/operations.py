# SPDX-License-Identifier: Apache-2.0
"""Operations of `iot-data`: shadows over HTTP, and Publish (aws-iot-protocol.md sections 2.9, 9)."""

from __future__ import annotations

import time
from typing import Any

from edgefleet import paging
from edgefleet.errors import ApiError, invalid, not_implemented
from edgefleet.messages import compact
from edgefleet.shadow import service
from edgefleet.shadow.requests import ShadowError
from edgefleet.store import Tx

MAX_PAGE = 100
MAX_PAYLOAD = 128 * 1024  # bytes of a message
MAX_TOPIC = 256  # bytes
MAX_SLASHES = 7

_CODES = {
    400: "InvalidRequestException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    413: "RequestEntityTooLargeException",
    415: "UnsupportedDocumentEncodingException",
}


class DataOperations:
    """An HTTP update or delete is seen over MQTT as accepted (and delta, documents); errors and gets are not."""

    def get_thing_shadow(self, tx: Tx, *, thingName: str, shadowName: str | None = None) -> dict[str, Any]:
        return self._answer(service.get, tx, thingName, shadowName, _now())

    def update_thing_shadow(self, tx: Tx, *, thingName: str, payload: bytes,
                            shadowName: str | None = None) -> dict[str, Any]:  # fmt: skip
        return self._answer(service.update, tx, thingName, shadowName, payload, _now())

    def delete_thing_shadow(self, tx: Tx, *, thingName: str, shadowName: str | None = None) -> dict[str, Any]:
        return self._answer(service.delete, tx, thingName, shadowName, _now())

    def list_named_shadows_for_thing(self, tx: Tx, *, thingName: str, nextToken: str | None = None,
                                     pageSize: int | None = None) -> dict[str, Any]:  # fmt: skip
        count = paging.limit(pageSize, MAX_PAGE, "pageSize")
        after = paging.decode(nextToken, str)
        found = service.named(tx, thingName, after[0] if after else "", count + 1)
        page: dict[str, Any] = {"results": found[:count], "timestamp": _now()}
        if len(found) > count:
            page["nextToken"] = paging.encode(found[count - 1])
        return page

    def publish(self, tx: Tx, *, topic: str, qos: int = 0, retain: bool = False,
                payload: bytes = b"") -> dict[str, Any]:  # fmt: skip
        """Send an ordinary message. Reserved topics are refused: their requests need a connection to answer."""
        if not topic or topic.startswith("$"):
            raise invalid(f"Cannot publish on topic '{topic}': empty and reserved topics are refused")
        if len(topic.encode()) > MAX_TOPIC or topic.count("/") > MAX_SLASHES:
            raise invalid(f"topic must have at most {MAX_TOPIC} bytes and {MAX_SLASHES} slashes")
        if any(character in topic for character in "+#\0"):
            raise invalid("topic must not contain wildcards or NUL")
        if qos not in (0, 1):
            raise invalid("qos must be 0 or 1")
        if retain:
            raise not_implemented("retain in Publish")
        if len(payload) > MAX_PAYLOAD:
            raise ApiError("RequestEntityTooLargeException", f"payload exceeds {MAX_PAYLOAD} bytes", 413)
        tx.publish(topic, bytes(payload), qos)
        return {}

    @staticmethod
    def _answer(operation: Any, *arguments: Any) -> dict[str, Any]:
        try:
            return {"payload": compact(operation(*arguments))}
        except ShadowError as error:
            raise ApiError(_CODES[error.code], error.message, error.code) from None


def _now() -> int:
    return int(time.time())
